"""The cluster lane: collected only when this folder is asked for, as `make test-cluster` does."""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.clusters import Cluster, found, on_all, running, tools
from tests.cluster.play import Play


def pytest_sessionstart(session: pytest.Session) -> None:
    """Build the programs before any test's time runs; end as by Ctrl-C, with the clusters, when told to end."""
    if not session.config.option.collectonly:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        tools()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    """All test workers share the clusters that their controller starts."""
    if "HXMLOPS_CLUSTERS" not in os.environ:
        stack = contextlib.ExitStack()
        config.add_cleanup(stack.close)
        started = stack.enter_context(running())
        os.environ["HXMLOPS_CLUSTERS"] = str(next(iter(started.values())).folder)


@pytest.fixture(scope="session")
def clusters() -> Iterator[dict[str, Cluster]]:
    """The three domains' control planes: those that HXMLOPS_CLUSTERS names, or new ones for this run."""
    if folder := os.environ.get("HXMLOPS_CLUSTERS"):
        yield found(Path(folder))
    else:
        with running() as started:
            yield started


@pytest.fixture(scope="session")
def breakable() -> Iterator[Cluster]:
    """A control plane that other test workers do not use: a second mno-staging, whose API server a test may kill."""
    with running(["mno-staging"]) as started:
        yield started["mno-staging"]


@pytest.fixture
def namespace(clusters: dict[str, Cluster]) -> Iterator[str]:
    """A new namespace in every domain that enforces the restricted level; removed afterwards, `-meters` too."""
    name = f"hx-{uuid.uuid4().hex[:8]}"
    on_all(clusters, lambda cluster: cluster.namespace(name))
    yield name
    removal = ("delete", "namespace", name, f"{name}-meters", "--ignore-not-found", "--wait=false")
    on_all(clusters, lambda cluster: cluster.kubectl(*removal))


@pytest.fixture
def helm(request: pytest.FixtureRequest) -> Path:
    """Folder with helm: HXMLOPS_HELM says 3 or 4, the default; `@BOTH_HELMS` runs a test with each."""
    return tools()[getattr(request, "param", f"helm{os.environ.get('HXMLOPS_HELM', '4')}")]


@pytest.fixture
def play(tmp_path: Path, clusters: dict[str, Cluster], namespace: str, helm: Path) -> Play:
    return Play(tmp_path, clusters, namespace, helm)
