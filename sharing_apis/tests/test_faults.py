"""What goes wrong leaves nothing half done: nothing answered is lost, nothing half there is seen or kept."""

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from alembic import command
from alembic.config import Config
from faults import (
    BYTES,
    MIB,
    PROCESSES,
    TUS,
    Client,
    Load,
    Server,
    assert_nothing_is_there,
    audit_of,
    begin_upload,
    environment,
    files_of,
    given_of,
    look_at,
    places,
    sha256,
    status_of,
    stored,
    until,
    upload,
)
from postgres import PostgreSQL
from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from hxmlops_evidence.keys import make_person
from hxmlops_sharing import collect, database
from hxmlops_sharing.access import EVERYONE
from hxmlops_sharing.database import Database
from hxmlops_sharing.deliveries import verify_receipt
from hxmlops_sharing.registry import Registry
from hxmlops_sharing.service import Service
from hxmlops_sharing.settings import Settings, read_settings
from hxmlops_sharing.tokens import create_token

ALL_BACKENDS = True

type Start = Callable[..., AbstractContextManager[httpx.Client]]
type Backend = Callable[[], dict[str, Any]]

KILLS = 20
FORM_WITHOUT_END = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx'


@pytest.fixture
def settings(backend: Backend, tmp_path: Path) -> Settings:
    return places(tmp_path, **backend())


@pytest.fixture
def api(start: Start, settings: Settings) -> Iterator[httpx.Client]:
    """A Model Sharing API of this process, with nothing in it."""
    with start(**given_of(settings)) as client:
        yield client


def writes(settings: Settings) -> Callable[[], object]:
    """Whether the store has something of an upload already (S3 shows nothing before its end)."""
    return lambda: settings.on_s3 or files_of(Path(settings.store))


def in_service[T](settings: Settings, work: Callable[[Service], Any]) -> Any:
    async def run() -> Any:
        async with Service.open(settings) as service:
            return await work(service)

    return asyncio.run(run())


# Processes killed


@pytest.mark.slow
def test_sigkill_at_random_moments_of_uploads(settings: Settings, tmp_path: Path) -> None:
    """What was answered is there, what was not is tried again: the same record or a new one, never half of one."""
    server = Server(settings, tmp_path / "log")
    moments = random.Random(20)  # noqa: S311 (moments)
    known: set[str] = set()
    with server:
        with Load([server.url], clients=4, what="kills").running() as load:
            for _ in range(KILLS):
                time.sleep(moments.uniform(0, 0.2))
                server.kill()
                look_at(settings, known)
                server.start()
        server.stop()
    assert sum(load.failures.values()) - load.failures["ConnectError"] >= KILLS / 2
    assert audit_of(settings).live == load.answered


@pytest.mark.slow
def test_sigkill_at_random_moments_of_collections(settings: Settings) -> None:
    """Versions that are deleted, and others with the same bytes that stay, or come meanwhile."""
    moments = random.Random(21)  # noqa: S311 (moments)
    kept: dict[tuple[str, str], str] = {}

    async def publish(service: Service, name: str, data: bytes) -> int:
        incoming = service.receiver.incoming()
        await incoming.write(data)
        content = await incoming.finish()
        metadata = {"name": name, "version": "1", "tag": "", "status": "production", "class": None, "library": ""}
        metadata |= {"library_version": "", "domain": ""}
        objects: dict[str, Any] = {"parameters": {}, "characteristics": {}}
        contents = {"sha256": content.sha256, "size": content.size}
        try:
            row = await service.registry.add(metadata | objects, contents, [incoming], EVERYONE, "test")
        finally:
            await incoming.discard()
        return int(row.id)

    async def stay(service: Service, number: int) -> None:
        await publish(service, f"stays{number}", b"%d" % number)
        kept[f"stays{number}", "1"] = sha256(b"%d" % number)

    async def fill(service: Service) -> None:
        for number in range(100):
            identifier = await publish(service, f"goes{number}", b"%d" % number)
            await service.registry.delete(identifier, "1", EVERYONE, "test")
            if number % 5 == 0:
                await stay(service, number)
            if number % 4 == 0:
                orphan = service.store.writer()
                await orphan.write(b"nobody's")
                await orphan.finish()
                orphan.keep()

    in_service(settings, fill)
    for number in range(KILLS):
        near, far = PROCESSES.Pipe(duplex=False)
        process = PROCESSES.Process(target=collect_for_ever, args=(environment(settings), far), daemon=True)
        process.start()
        near.recv()
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.join()
        look_at(settings, set())
        in_service(settings, lambda service: stay(service, number * 5 + 1))  # noqa: B023 (called at once)

    async def end(service: Service) -> None:
        for _ in range(3):
            await collect.collect(service.database, service.store, grace_days=0, settle_s=0, orphan_s=0)

    in_service(settings, end)
    audited = audit_of(settings)
    assert audited.live == kept
    assert len(audited.rows) == len(kept)


def collect_for_ever(variables: Mapping[str, str], begun: Any) -> None:
    os.environ.update(variables)
    collect.BATCH = 3

    async def run() -> None:
        async with Service.open(read_settings()) as service:
            begun.send(None)
            while True:
                await collect.collect(service.database, service.store, grace_days=0, settle_s=0, orphan_s=0)

    asyncio.run(run())


OLD_VERSIONS = 300
THEN = "2026-01-01T00:00:00.000000Z"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Database and store as version 0.1.0 left them: hundreds of versions, of which some share bytes."""
    folder = tmp_path_factory.mktemp("old")
    engine = create_engine(f"sqlite:///{folder / 'records.sqlite'}")
    with engine.begin() as connection:
        fill_old(connection)
    engine.dispose()
    for number in range(OLD_VERSIONS):
        digest = sha256(b"%d" % (number % 250)).removeprefix("sha256:")
        path = folder / "store" / "objects" / digest[:2] / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % (number % 250))
    return folder


def fill_old(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", "hxmlops_sharing:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "0001")
    numbers = range(1, OLD_VERSIONS + 1)
    rows: list[dict[str, Any]] = [
        {"id": number, "name": f"m{number}", "then": THEN, "digest": sha256(b"%d" % ((number - 1) % 250)),
         "size": len(b"%d" % ((number - 1) % 250))}
        for number in numbers
    ]  # fmt: skip
    connection.execute(
        text(
            "INSERT INTO models VALUES (:id, :name, '1', 'k', '', :digest, :digest, :then, 'me',"
            " 'production', NULL, '', '', '', '{}', '{}', :size)"
        ),
        rows,
    )
    line = "INSERT INTO audit VALUES ({}, :then, 'me', '{}', 'model', :id, :name, '1', :digest, '{}', 'r')"
    connection.execute(text(line.format(":id", "upload", "{}")), rows)
    more = [row | {"line": OLD_VERSIONS + row["id"]} for row in rows]
    connection.execute(text(line.format(":line", "change", '{"tag": ["", "a"]}').replace('":', '"\\:')), more)


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_sigkill_at_random_moments_of_migrations(
    dialect: str, old: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A migration is done or has not begun; the next server does it."""
    moments = random.Random(22)  # noqa: S311 (moments)
    template = request.getfixturevalue("old_postgresql") if dialect == "postgresql" else None
    states: list[str] = []
    took = 0.2
    for number in range(KILLS):
        if template:
            settings = places(tmp_path, store=str(old / "store"), **template())
        else:
            copy = tmp_path / f"{number}.sqlite"
            copy.write_bytes((old / "records.sqlite").read_bytes())
            settings = places(tmp_path, store=str(old / "store"), database=str(copy))
        near, far = PROCESSES.Pipe(duplex=False)
        process = PROCESSES.Process(target=migrate, args=(environment(settings), far), daemon=True)
        process.start()
        near.recv()
        began = time.monotonic()
        if number == 0:
            near.recv()
            took = time.monotonic() - began
        else:
            time.sleep(moments.uniform(0, took))
        process.kill()
        process.join()
        states.append(state_of(settings))
    assert states[0] == "0002"
    assert states.count("0001") >= KILLS / 4
    audited = audit_of(settings)
    assert audited.live == {(f"m{number + 1}", "1"): sha256(b"%d" % (number % 250)) for number in range(OLD_VERSIONS)}
    assert audited.lines == 2 * OLD_VERSIONS


def migrate(variables: Mapping[str, str], moments: Any) -> None:
    os.environ.update(variables)

    async def run() -> None:
        opened = Database(read_settings())
        moments.send(None)
        await opened.open()
        moments.send(None)

    asyncio.run(run())


def state_of(settings: Settings) -> str:
    """The schema that a killed server left, all of it; and that the next server makes it current."""

    async def look() -> str:
        opened = Database(settings)
        try:
            async with opened.read() as connection:
                revision = str(await connection.scalar(text("SELECT version_num FROM alembic_version")))
                lines = await connection.scalar(text("SELECT count(*) FROM audit"))
                versions = await connection.scalar(text("SELECT count(*) FROM models"))
                assert (versions, lines) == (OLD_VERSIONS, 2 * OLD_VERSIONS)
                tables = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
            assert ("objects" in tables) == (revision != "0001")
            assert not [name for name in tables if name.startswith(("_alembic_tmp", "audit_0001"))]
            await opened.open()
            return revision
        finally:
            await opened.close()

    return asyncio.run(look())


@pytest.fixture(scope="module")
def old_postgresql(postgres: PostgreSQL) -> Callable[[], dict[str, Any]]:
    """Makes databases of version 0.1.0 on PostgreSQL."""
    given = postgres.database()
    name = given["database"].rpartition("/")[2]

    async def fill() -> None:
        url = f"postgresql+asyncpg://hxmlops:{postgres.password}@127.0.0.1:{postgres.port}/{name}"
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            await connection.run_sync(fill_old)
        await engine.dispose()

    asyncio.run(fill())
    return lambda: postgres.database(template=name)


# Clients gone


def test_a_client_that_leaves_mid_upload(api: httpx.Client, settings: Settings) -> None:
    with begin_upload(api):
        until(writes(settings))
    assert_nothing_is_there(api, settings)
    assert upload(api).json()["modelIdentifier"] == 1


@pytest.mark.parametrize("body", [b"garbage", b"--b\r\n\r\n", FORM_WITHOUT_END])
def test_a_garbage_body(api: httpx.Client, settings: Settings, body: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = api.post("/api/v1/model", content=body + b"x" * 2 * MIB, headers=headers)
    assert answer.status_code == 400
    assert_nothing_is_there(api, settings)


def test_a_client_that_leaves_mid_download(api: httpx.Client, settings: Settings, model_host: Any) -> None:
    """The audit says how much it got; the server holds nothing of it any more."""
    upload(api, os.urandom(32 * MIB))
    connections = len(model_host.server.server_state.connections)
    for _ in range(3):
        with (
            httpx.Client(base_url=api.base_url, verify=False) as other,
            other.stream("GET", "/api/v1/model/1") as answer,
        ):
            assert len(next(answer.iter_bytes())) > 0
    until(lambda: len(delivered(api)) == 3)
    for line in delivered(api):
        assert not line["detail"]["complete"]
        assert line["detail"]["bytes"] < 32 * MIB
    until(lambda: len(model_host.server.server_state.connections) == connections)
    assert open_files(settings.store) == []


def open_files(folder: str) -> list[str]:
    """Those of this process below a folder."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile, as that of this listing
            found.append(str(descriptor.readlink()))
    return [path for path in found if path.startswith(folder)]


def delivered(api: httpx.Client) -> list[dict[str, Any]]:
    return [line for line in api.get("/api/v1/audit").json()["lines"] if line["action"] == "delivered"]


def test_a_server_that_starts_leaves_uploads_of_a_living_one_alone(api: httpx.Client, settings: Settings) -> None:
    with begin_upload(api) as connection:
        until(writes(settings))

        async def sweep(service: Service) -> None:
            await collect.collect(service.database, service.store, grace_days=0, settle_s=0, orphan_s=0)
            await collect.collect(service.database, service.store, grace_days=0, settle_s=0, orphan_s=0)

        if not settings.on_s3:  # there, what another server has just begun is told by its age
            in_service(settings, sweep)
        connection.sendall(b"x" * 4 * MIB)
        assert status_of(connection) == 200
    assert sha256(api.get("/api/v1/model/1").content) == sha256(b"x" * 8 * MIB)
    assert len(audit_of(settings).live) == 1


# The database gone


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_database_gone_and_back(postgres: PostgreSQL, migrated: str, tmp_path: Path, how: signal.Signals) -> None:
    """Uploads under way are answered 503, the server goes on when it is back."""
    settings = places(tmp_path, **postgres.database(template=migrated))
    server = Server(settings, tmp_path / "log")
    with server, httpx.Client(base_url=server.url, timeout=60, verify=False) as api:
        assert upload(api, version="0").status_code == 200
        location = api.post("/api/v1/files", headers=TUS | {"Upload-Length": "9"}).headers["Location"]
        with begin_upload(api) as connection:
            until(writes(settings))
            postgres.stop(how)
            try:
                connection.sendall(b"x" * 4 * MIB)
                assert status_of(connection) == 503
                answer = api.patch(location, content=b"123", headers=BYTES | {"Upload-Offset": "0"})
                assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
                for path in ("/ready", "/api/v1/model/1/data", "/api/v1/model/1", "/api/v1/model_catalog"):
                    answer = api.get(path)
                    assert answer.status_code == 503, path
                    assert "database" in answer.json()["detail"]
                    assert api.get("/live").status_code == 200
                assert len(files_of(Path(settings.store))) == 1
            finally:
                postgres.start()
        client = Client(server.url, "back")
        for path in ("/ready", "/api/v1/model/1/data", "/api/v1/model/1"):
            client.ask("GET", path)
        assert client.ask("HEAD", location, headers=TUS).headers["Upload-Offset"] == "0"
        assert upload(api).status_code == 200
        client.close()
        server.stop()
    assert len(audit_of(settings).live) == 2


def test_a_database_that_goes_at_random_moments(postgres: PostgreSQL, migrated: str, tmp_path: Path) -> None:
    settings = places(tmp_path, **postgres.database(template=migrated))
    server = Server(settings, tmp_path / "log")
    moments = random.Random(23)  # noqa: S311 (moments)
    with server:
        with Load([server.url], clients=4, what="gone").running() as load:
            for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGINT, signal.SIGQUIT):
                time.sleep(moments.uniform(0.2, 0.6))
                postgres.stop(how)
                time.sleep(moments.uniform(0, 0.2))
                postgres.start()
        server.stop()
    assert load.failures["503"] > 0
    assert audit_of(settings).live == load.answered


def test_a_locked_database_is_503(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.1)
    settings = places(tmp_path)
    with start(**given_of(settings)) as api:
        assert upload(api, version="0").status_code == 200
        other = sqlite3.connect(settings.database, isolation_level=None)
        with contextlib.closing(other):
            other.execute("BEGIN IMMEDIATE")
            answer = upload(api)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
            assert api.get("/api/v1/model/1/data").status_code == 200
            other.execute("ROLLBACK")
        assert upload(api).status_code == 200
    assert len(audit_of(settings).live) == 2


def test_the_bytes_go_when_the_record_cannot_be_written(
    api: httpx.Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise OperationalError("insert", {}, Exception("the database is gone"))

    with monkeypatch.context() as patched:
        patched.setattr(Registry, "_audit", fail)
        answer = upload(api)
        assert answer.status_code == 500
        assert "gone" not in answer.text
        assert_nothing_is_there(api, settings)
    identifier = upload(api).json()["modelIdentifier"]
    assert api.get(f"/api/v1/model/{identifier}").content == b"bytes"


# Bytes lost, equal bytes, bytes that come and go


def test_lost_bytes_are_said_and_a_repeated_upload_heals_them(tmp_path: Path, start: Start) -> None:
    settings = places(tmp_path)
    with start(**given_of(settings)) as api:
        for cut in (True, False):
            upload(api)
            (location,) = files_of(Path(settings.store))
            path = Path(settings.store) / location
            if cut:
                path.write_bytes(b"cut")
            else:
                path.unlink()
            answer = api.get("/api/v1/model/1")
            assert answer.status_code == 500
            assert answer.json()["detail"] == "the bytes of this version are lost: tell the owner of this server"
            assert upload(api).json()["modelIdentifier"] == 1
            assert api.get("/api/v1/model/1").content == b"bytes"
            audit_of(settings)


def test_equal_uploads_at_once_make_one_record(api: httpx.Client, settings: Settings) -> None:
    data = os.urandom(3 * MIB)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: upload(api, data), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["modelIdentifier"] for answer in answers} == {1}
    assert audit_of(settings).live == {("churn", "1"): sha256(data)}


def test_of_different_uploads_of_a_version_at_once_one_wins(api: httpx.Client, settings: Settings) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: upload(api, bytes([number])), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    assert len(audit_of(settings).rows) == 1


def test_bytes_shared_by_versions_survive_deletions_at_once(api: httpx.Client, settings: Settings) -> None:
    """One version comes and goes, others with the same bytes come: none of these loses its bytes."""
    stop = threading.Event()

    def come_and_go() -> Iterator[int]:
        while not stop.is_set():
            identifier = upload(api, version="passing").json()["modelIdentifier"]
            yield api.delete(f"/api/v1/model/{identifier}?version=passing").status_code

    with ThreadPoolExecutor(1) as pool:
        passing = pool.submit(lambda: list(come_and_go()))
        for number in range(6):
            stayed = upload(api, version=str(number)).json()["modelIdentifier"]
            assert api.get(f"/api/v1/model/{stayed}?version={number}").content == b"bytes"
            api.delete(f"/api/v1/model/{stayed}?version={number}")
        stop.set()
        assert set(passing.result()) == {200}
    assert audit_of(settings).live == {}


def test_a_download_goes_on_when_its_version_is_deleted(api: httpx.Client) -> None:
    data = os.urandom(16 * MIB)
    upload(api, data)
    with api.stream("GET", "/api/v1/model/1") as answer:
        body = answer.iter_bytes()
        received = next(body)
        assert api.delete("/api/v1/model/1?version=1").status_code == 200
        assert received + b"".join(body) == data


# The clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves what servers of this process take for the time so many hours from what it is.

    But for what they sign requests to S3 by, which refuses whoever's clock is wrong: then nothing is done at all.
    """

    class Clock(datetime):
        moved = timedelta()

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + cls.moved

    for module in [found for name, found in sys.modules.items() if name.startswith("hxmlops_sharing.")]:
        if vars(module).get("datetime") is datetime and module.__name__ != "hxmlops_sharing.s3_signing":
            monkeypatch.setattr(module, "datetime", Clock)
    seconds = time.time
    monkeypatch.setattr(time, "time", lambda: seconds() + Clock.moved.total_seconds())

    def move(hours: float) -> None:
        Clock.moved = timedelta(hours=hours)

    return move


def test_order_does_not_hang_on_the_clock(
    settings: Settings, start: Start, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    """The latest version, an alias's history, the audit: what came later is later, whatever the clock said."""
    card = make_person(tmp_path, party="vendor", person="vendor")
    with start(**given_of(settings) | {"signing_key": tmp_path / "vendor.pem"}) as api:
        for number, hours in enumerate((0, -1, 1, -1), start=1):
            clock(hours)
            assert upload(api, b"%d" % number, version=f"1.0.0+{number}").json()["modelIdentifier"] == number
            assert api.get("/api/v1/model/1").content == b"%d" % number
            answer = api.put("/api/v1/aliases/champion?name=churn", json={"identifier": number})
            assert answer.json()["revision"] == number
        history = api.get("/api/v1/aliases/champion?name=churn").json()["aliases"]
        assert [each["identifier"] for each in history] == [4, 3, 2, 1]
        set_at = [each["setAt"] for each in history]
        assert set_at not in (sorted(set_at), sorted(set_at, reverse=True))
        clock(0)
        with api.stream("GET", "/api/v1/model/1") as answer:
            clock(-1)
            answer.read()
        got = httpx.Response(409)
        while got.status_code == 409:
            got = api.get(answer.headers["X-HXMLOps-Receipt"])
        said = verify_receipt(got.json(), card["keys"][0]["public"])
        assert (said["complete"], said["artifact"]) == (True, sha256(b"4"))
    audited = audit_of(settings)
    assert len(audited.live) == 4
    times = [row["created_at"] for row in audited.rows]
    assert times != sorted(times)


def test_nothing_is_collected_early_when_the_clock_jumps(
    settings: Settings, start: Start, clock: Callable[[float], None], model_host: Any
) -> None:
    """Neither what can be restored, nor files and uploads under way, nor what a download may still be reading."""

    def collect_all(grace_days: float = 1) -> int:
        """How much the store has afterwards."""
        service = model_host.app.state.service
        for _ in range(3):
            model_host.run(collect.collect(service.database, service.store, grace_days=grace_days))
        return len(model_host.run(stored(service)))

    with start(**given_of(settings)) as api:
        for version in ("deleted", "gone", "kept"):
            assert upload(api, version.encode(), version=version).status_code == 200
        assert api.delete("/api/v1/model/1?version=deleted").status_code == 200
        location = api.post("/api/v1/files", headers=TUS | {"Upload-Length": "6"}).headers["Location"]
        half = api.patch(location, content=b"abc", headers=BYTES | {"Upload-Offset": "0"})
        assert half.status_code == 204
        with begin_upload(api) as connection:
            until(writes(settings))
            for hours in (-1.0, 1.0, -1.0, 0.0, 1.0):
                clock(hours)
                collect_all()
                assert api.head(location, headers=TUS).headers["Upload-Offset"] == "3"
            connection.sendall(b"x" * 4 * MIB)
            assert status_of(connection) == 200
        rest = api.patch(location, content=b"def", headers=BYTES | {"Upload-Offset": "3"})
        assert rest.status_code == 204
        clock(0)
        registration = {"name": "churn", "version": "2", "file": location}
        assert api.post("/api/v1/model", json=registration).json()["sha256"] == sha256(b"abcdef")
        assert api.post("/api/v1/model/1/restore").status_code == 200
        assert api.get("/api/v1/model/1?version=deleted").content == b"deleted"

        assert api.delete("/api/v1/model/2?version=gone").status_code == 200
        there = collect_all(grace_days=0)  # nobody's now
        for hours, gone in ((-1, 0), (0.9, 0), (-1, 0), (1.1, 1)):
            clock(hours)
            assert collect_all() == there - gone, hours
    assert len(audit_of(settings).live) == 4


def test_what_expires_does_so_by_the_clock(tmp_path: Path, start: Start, clock: Callable[[float], None]) -> None:
    """A token and a file are good before their time is over, as often as it comes again."""
    tokens, token = tmp_path / "tokens.json", tmp_path / "token"
    create_token(tokens, token, client="me", scopes=["admin"], artifacts=["*"], days=1)
    with start(auth="tokens", tokens=tokens, upload_expiry_hours=12) as api:
        api.headers["Authorization"] = f"Bearer {token.read_text().strip()}"
        location = api.post("/api/v1/files", headers=TUS | {"Upload-Length": "6"}).headers["Location"]
        for hours, catalogue, file in ((-1, 404, 200), (11, 404, 200), (13, 404, 410), (25, 401, 401), (-1, 404, 200)):
            clock(hours)
            assert api.get("/api/v1/model_catalog").status_code == catalogue, hours
            assert api.head(location, headers=TUS).status_code == file, hours
