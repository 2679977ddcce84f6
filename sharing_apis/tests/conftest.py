"""Running servers to test against, spoken to over plain HTTP."""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import structlog
import uvloop
from postgres import PostgreSQL, postgresql
from s3_server import PROGRAM, on_s3, s3_server

from hxmlops_sharing.app import create_app
from hxmlops_sharing.database import Database
from hxmlops_sharing.serve import bind, server_of
from hxmlops_sharing.service import Service
from hxmlops_sharing.settings import Settings, read_settings

type Start = Callable[..., contextlib.AbstractContextManager[httpx.Client]]
"""Starts a server with settings given by keyword; gives a client of its root."""
type StartProcess = Callable[..., contextlib.AbstractContextManager[tuple[subprocess.Popen[bytes], httpx.Client]]]
type Backend = Callable[[], dict[str, Any]]
"""Settings that name a new, empty database and store other than SQLite and a folder; {} for these."""

BACKENDS = ["sqlite-folder", pytest.param("postgresql-folder", marks=pytest.mark.slow)]
if PROGRAM:
    BACKENDS += [pytest.param(each, marks=pytest.mark.slow) for each in ("sqlite-s3", "postgresql-s3")]


class Host:
    """One server of a kind in a thread for all tests; each test, or module, puts a service of its own behind it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.settings = read_settings(
            kind=kind, auth="none", port=0, database=str(folder / "records.sqlite"), store=str(folder / "store")
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
        if "database" not in given and not (folder / "records.sqlite").exists():
            shutil.copy(self.settings.database, folder / "records.sqlite")
        replaced = {"database": str(folder / "records.sqlite"), "store": str(folder / "store")} | given
        stack = contextlib.AsyncExitStack()
        settings = Settings(**self.settings.model_dump() | replaced)
        before = self.app.state.service
        self.app.state.service = self.run(stack.enter_async_context(Service.open(settings)))
        try:
            with httpx.Client(base_url=self.url, timeout=30, verify=False) as client:
                yield client
        finally:
            for _ in range(2000):  # what was begun ends before its database is closed
                if not self.server.server_state.tasks:
                    break
                time.sleep(0.01)
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
def in_process(
    folder: Path, *, kind: str = "model", **given: Any
) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A server as users start it, without authentication unless told otherwise; its log is `folder/log`."""
    settings = {
        "kind": kind,
        "database": folder / "records.sqlite",
        "store": folder / "store",
        "auth": "none",
        "port": 0,
        **given,
    }
    environment = os.environ | {f"HXMLOPS_SHARING_{name.upper()}": str(value) for name, value in settings.items()}
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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs the S3 server is slow: `make test` has none."""
    for item in items:
        if on_s3.mark in item.iter_markers():
            item.add_marker(pytest.mark.slow)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Modules with ALL_BACKENDS run against each (slow but for the first); others against SQLite and a folder."""
    if "backend" in metafunc.fixturenames:
        every = getattr(metafunc.module, "ALL_BACKENDS", False)
        metafunc.parametrize("backend", BACKENDS if every else BACKENDS[:1], indirect=True, scope="session")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgreSQL]:
    """A PostgreSQL server for all tests."""
    with postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def migrated(postgres: PostgreSQL) -> str:
    """Name of a database to copy, with the current schema and nothing in it."""
    settings = read_settings(kind="model", auth="none", store="unused", **postgres.database())

    async def migrate() -> None:
        database = Database(settings)
        await database.open()
        await database.close()

    asyncio.run(migrate())
    return settings.database.rpartition("/")[2]


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Any]]:
    """Settings of a bucket on an S3 server for all tests."""
    with s3_server(tmp_path_factory.mktemp("s3")) as settings:
        yield settings


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> Backend:
    """Where a test's records and bytes are."""
    database, store = request.param.split("-")

    def settings() -> dict[str, Any]:
        found: dict[str, Any] = {}
        if database == "postgresql":
            found |= request.getfixturevalue("postgres").database(template=request.getfixturevalue("migrated"))
        if store == "s3":
            found |= request.getfixturevalue("s3")
            found["store"] += f"/{secrets.token_hex(4)}"
        return found

    return settings


@pytest.fixture
def place(tmp_path: Path, backend: Backend) -> dict[str, Any]:
    """Settings that say where everything is."""
    return {"database": str(tmp_path / "records.sqlite"), "store": str(tmp_path / "store")} | backend()


@pytest.fixture
def start(start_in: Start, tmp_path: Path, backend: Backend) -> Start:
    """Starts an API over the test's folder, or another backend, with settings by keyword."""
    settings = backend()
    return lambda **given: start_in(tmp_path, **settings | given)


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
