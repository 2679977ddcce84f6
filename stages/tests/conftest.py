"""Fixtures for the stages that hand over between domains; what they are made of is in worlds.py."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .servers import SharingApis, sharing_apis_in
from .worlds import Accepted, World, accepted_in, new_world


@pytest.fixture(scope="session")
def sharing_apis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharingApis]:
    with sharing_apis_in(tmp_path_factory.mktemp("sharing")) as apis:
        yield apis


@pytest.fixture(scope="session")
def apis(request: pytest.FixtureRequest) -> Callable[[], SharingApis]:
    """Starts the servers for the first test that asks."""
    return lambda: request.getfixturevalue("sharing_apis")


@contextmanager
def umask_of_stages() -> Iterator[None]:
    """A stage sets it for its own process; here that is the tests'."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture
def world(tmp_path: Path, apis: Callable[[], SharingApis]) -> Iterator[World]:
    """A world in which nothing has happened yet."""
    with umask_of_stages():
        yield new_world(tmp_path, apis)


@pytest.fixture(scope="session")
def accepted_once(tmp_path_factory: pytest.TempPathFactory, apis: Callable[[], SharingApis]) -> Accepted:
    with umask_of_stages():
        return accepted_in(tmp_path_factory.mktemp("accepted"), apis)


@pytest.fixture
def accepted(accepted_once: Accepted, tmp_path: Path) -> Iterator[Accepted]:
    """A world of the test's own in which a model was built and accepted, with its files by name."""
    with umask_of_stages():
        yield accepted_once.within(tmp_path)
