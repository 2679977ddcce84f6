"""Running servers to test against, spoken to over plain HTTP."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import structlog
import uvloop

from hxmlops_sharing.app import create_app
from hxmlops_sharing.serve import bind, server_of
from hxmlops_sharing.service import Service
from hxmlops_sharing.settings import Settings, read_settings

type Start = Callable[..., contextlib.AbstractContextManager[httpx.Client]]
"""Starts a server with settings given by keyword; gives a client of its root."""
type StartProcess = Callable[..., contextlib.AbstractContextManager[tuple[subprocess.Popen[bytes], httpx.Client]]]


class Host:
    """One server of a kind in a thread for all tests; each test, or module, puts a service of its own behind it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.settings = read_settings(
            kind=kind, auth="none", port=0, database=folder / "records.sqlite", store=folder / "store"
        )
        self.loop = uvloop.new_event_loop()
        self.listening = bind(self.settings)
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self.opened = contextlib.AsyncExitStack()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        service = self.run(self.opened.enter_async_context(Service.open(self.settings)))
        self.app = create_app(service)
        self.server = server_of(self.app)
        self.serving = asyncio.run_coroutine_threadsafe(self.server.serve([self.listening]), self.loop)

    def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    @contextlib.contextmanager
    def open(self, folder: Path, **given: Any) -> Iterator[httpx.Client]:
        """A client of a service over this folder, where there may be one already."""
        if not (folder / "records.sqlite").exists():
            shutil.copy(self.settings.database, folder / "records.sqlite")
        replaced = {"database": folder / "records.sqlite", "store": folder / "store"} | given
        stack = contextlib.AsyncExitStack()
        settings = Settings(**self.settings.model_dump() | replaced)
        before = self.app.state.service
        self.app.state.service = self.run(stack.enter_async_context(Service.open(settings)))
        try:
            with httpx.Client(base_url=self.url, timeout=30, verify=False) as client:
                yield client
        finally:
            self.app.state.service = before
            self.run(stack.aclose())

    def close(self) -> None:
        self.server.should_exit = True
        self.serving.result(60)
        self.run(self.opened.aclose())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
        self.listening.close()


@contextlib.contextmanager
def in_process(folder: Path, *, kind: str = "model") -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A server as users start it, without authentication; its log is `folder/log`."""
    environment = {
        **os.environ,
        "HXMLOPS_SHARING_KIND": kind,
        "HXMLOPS_SHARING_DATABASE": str(folder / "records.sqlite"),
        "HXMLOPS_SHARING_STORE": str(folder / "store"),
        "HXMLOPS_SHARING_AUTH": "none",
        "HXMLOPS_SHARING_PORT": "0",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "hxmlops_sharing", "serve"], env=environment, stderr=log)
    try:
        port = _port(folder / "log", process)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, verify=False) as client:
            yield process, client
    finally:
        process.terminate()
        process.wait()


def _port(log: Path, process: subprocess.Popen[bytes]) -> int:
    """The port that the server says it serves on."""
    for _ in range(2000):
        for line in log.read_text().splitlines():
            with contextlib.suppress(ValueError, KeyError):
                event = json.loads(line)
                if event["event"] == "serving":
                    return int(event["port"])
        assert process.poll() is None, log.read_text()
        time.sleep(0.01)
    raise TimeoutError(log.read_text())


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> None:
    """Servers in this process log to nowhere."""
    structlog.configure([structlog.processors.KeyValueRenderer()], logger_factory=structlog.ReturnLoggerFactory())


@pytest.fixture(scope="session")
def model_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host("model", tmp_path_factory.mktemp("models"))
    yield host
    host.close()


@pytest.fixture(scope="session")
def dataset_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host("dataset", tmp_path_factory.mktemp("datasets"))
    yield host
    host.close()


@pytest.fixture(scope="session")
def start_in(model_host: Host, dataset_host: Host) -> Start:
    """Starts an API over a folder, with settings by keyword; Model Sharing unless `kind` says otherwise."""
    hosts = {"model": model_host, "dataset": dataset_host}
    return lambda folder, **given: hosts[given.get("kind", "model")].open(folder, **given)


@pytest.fixture
def start(start_in: Start, tmp_path: Path) -> Start:
    """Starts an API over the test's folder, with settings by keyword."""
    return lambda **given: start_in(tmp_path, **given)


@pytest.fixture
def start_process(tmp_path: Path) -> StartProcess:
    """Starts a server in a process of its own over the test's folder."""
    return lambda **given: in_process(tmp_path, **given)


@pytest.fixture(scope="session")
def process_api(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client, Path]]:
    """A Model Sharing API in a process of its own for several tests: process, client, folder."""
    folder = tmp_path_factory.mktemp("process")
    with in_process(folder) as (process, client):
        yield process, client, folder


@pytest.fixture
def models(start: Start) -> Iterator[httpx.Client]:
    """A Model Sharing API with nothing in it."""
    with start() as client:
        yield client


@pytest.fixture
def datasets(start: Start) -> Iterator[httpx.Client]:
    """A Dataset Sharing API with nothing in it."""
    with start(kind="dataset") as client:
        yield client
