"""Parties, a serving folder, and a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hxmlops_model_server.testing import Parties, Server, Serving


@pytest.fixture(scope="session")
def pinned(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    """Parties whose pins no test changes."""
    return Parties(tmp_path_factory.mktemp("parties"))


@pytest.fixture
def serving(tmp_path: Path, pinned: Parties) -> Serving:
    """An empty serving folder."""
    folder = tmp_path / "serving"
    folder.mkdir()
    return Serving(folder, pinned)


@pytest.fixture(scope="session")
def one_server(tmp_path_factory: pytest.TempPathFactory, pinned: Parties) -> Iterator[Server]:
    """A server, on whatever its tests let it serve."""
    server = Server(Serving(tmp_path_factory.mktemp("serving"), pinned))
    yield server
    assert server.stop()[0] == 0
