"""What the tests of faults share: servers that are soon up and soon killed, clients that try again, and an audit."""

import asyncio
import contextlib
import hashlib
import itertools
import multiprocessing
import os
import random
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2 as httpx
from sqlalchemy import select

from hxmlops_sharing import audit, collect
from hxmlops_sharing.__main__ import main
from hxmlops_sharing.collect import Collected
from hxmlops_sharing.service import Service
from hxmlops_sharing.settings import Settings, read_settings
from hxmlops_sharing.store import Store
from hxmlops_sharing.tables import audit as audit_lines
from hxmlops_sharing.tables import datasets, garbage, models, objects, uploads

MIB = 1 << 20
FOREVER_DAYS = 36_500
TUS = {"Tus-Resumable": "1.0.0"}
BYTES = TUS | {"Content-Type": "application/offset+octet-stream"}
AGAIN = (409, 423, 503)
"""Answers after which a client looks where its file stands, or tries again."""

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [f"hxmlops_sharing.{name}" for name in ("serve", "model_api", "catalogue", "s3_store")]
    + ["aiosqlite", "asyncpg", "alembic.command", "sqlalchemy.dialects.sqlite.aiosqlite"]
    + ["sqlalchemy.dialects.postgresql.asyncpg"]
)


def environment(settings: Settings) -> dict[str, str]:
    """The settings that were given, as a server is told them."""
    found = {}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        found[f"HXMLOPS_SHARING_{name.upper()}"] = str(getattr(value, "get_secret_value", lambda value=value: value)())
    return found


def places(folder: Path, **given: Any) -> Settings:
    """Settings of servers over a folder, or over what is given."""
    where = {"database": str(folder / "records.sqlite"), "store": str(folder / "store")}
    return read_settings(**{"kind": "model", "auth": "none", "collect_every_minutes": 0} | where | given)


class Server:
    """A server on a port of its own, each time in a new process, which is there in some milliseconds."""

    def __init__(self, settings: Settings, log: Path, *, settle_s: float = 3600, orphan_s: float = 3600) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self._environment = environment(settings) | {"HXMLOPS_SHARING_PORT": str(self.port)}
        self._ages = {"settle_s": settle_s, "orphan_s": orphan_s}

    def start(self) -> None:
        """Returns when it answers."""
        self.process = PROCESSES.Process(target=_serve, args=(self._environment, self.log, self._ages), daemon=True)
        self.process.start()
        with httpx.Client(timeout=30, verify=False) as client:
            for _ in range(2000):
                with contextlib.suppress(httpx.TransportError):
                    client.get(self.url + "/live")
                    return
                assert self.process.is_alive(), self.log.read_text()
                time.sleep(0.01)
        raise TimeoutError(self.log.read_text())

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def stop(self) -> None:
        """SIGTERM; it ends as it should."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGTERM)
        self.process.join(40)
        assert self.process.exitcode == 0, self.log.read_text()

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _serve(variables: Mapping[str, str], log: Path, ages: Mapping[str, float]) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 2)
    os.environ.update(variables)
    assert collect.collect.__kwdefaults__ is not None
    collect.collect.__kwdefaults__.update(ages)
    sys.exit(main(["serve"]))


def content_of(name: str) -> bytes:
    """The bytes that a client publishes under this name: up to 3 MiB, more often little."""
    chance = random.Random(name)  # noqa: S311 (to be had again)
    return chance.randbytes(chance.choice([0, 1, 1000, 70_000, MIB, MIB + 1, 3 * MIB]))


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Client:
    """Does what it was asked to until a server has answered that it is done."""

    def __init__(self, url: str, seed: str) -> None:
        self.url = url
        self.chance = random.Random(seed)  # noqa: S311 (moments)
        self.failures: Counter[str] = Counter()
        self._http = httpx.Client(timeout=30, verify=False)

    def close(self) -> None:
        self._http.close()

    def ask(self, method: str, path: str, *, expected: Sequence[int] = (200,), **more: Any) -> httpx.Response:
        """The answer, which is one of those expected; until there is one, again."""
        for _ in range(3000):
            answer = self.once(method, path, **more)
            if answer is not None and answer.status_code in expected:
                return answer
            assert answer is None or answer.status_code == 503, (method, path, answer.status_code, answer.text)
            time.sleep(0.02)
        raise TimeoutError(f"{method} {path}: {self.failures}")

    def once(self, method: str, path: str, **more: Any) -> httpx.Response | None:
        """The answer; None when there was none."""
        try:
            answer = self._http.request(method, self.url + path, **more)
        except httpx.TransportError as error:
            self.failures[type(error).__name__] += 1
            return None
        if answer.status_code == 503:
            self.failures["503"] += 1
        return answer

    def publish(self, name: str, data: bytes) -> dict[str, Any]:
        """One of three ways to register version 1 of a name; the record is right."""
        record = self.chance.choice([self._form, self._raw, self._in_pieces])(name, data).json()
        assert (record["name"], record["sha256"], record["size"]) == (name, sha256(data), len(data))
        return dict(record)

    def download(self, record: Mapping[str, Any]) -> None:
        """All or a range of a version's bytes; they are its own."""
        data = content_of(record["name"])
        path = f"/api/v1/model/by_id/{record['modelIdentifier']}"
        start = self.chance.randrange(len(data)) if data and self.chance.random() < 0.5 else None
        headers = {"Range": f"bytes={start}-"} if start is not None else {}
        assert self.ask("GET", path, headers=headers, expected=[206 if headers else 200]).content == data[start or 0 :]

    def _form(self, name: str, data: bytes) -> httpx.Response:
        return self.ask("POST", "/api/v1/model", data={"name": name, "version": "1"}, files={"file": data})

    def _raw(self, name: str, data: bytes) -> httpx.Response:
        headers = {"Content-Type": "application/octet-stream"}
        return self.ask("POST", "/api/v1/model", params={"name": name, "version": "1"}, content=data, headers=headers)

    def _in_pieces(self, name: str, data: bytes) -> httpx.Response:
        created = self.ask("POST", "/api/v1/files", headers=TUS | {"Upload-Length": str(len(data))}, expected=[201])
        path = created.headers["Location"]
        place = 0
        while place < len(data):
            piece = data[place : place + self.chance.choice([1000, 100_000, MIB])]
            answer = self.once("PATCH", path, content=piece, headers=BYTES | {"Upload-Offset": str(place)})
            if answer is not None and answer.status_code == 204:
                place += len(piece)
                assert int(answer.headers["Upload-Offset"]) == place
                continue
            assert answer is None or answer.status_code in AGAIN, answer.text
            time.sleep(0.02)
            now = int(self.ask("HEAD", path, headers=TUS).headers["Upload-Offset"])
            assert now >= place  # what was answered is there
            place = now
        registration = {"name": name, "version": "1", "file": path, "sha256": sha256(data)}
        return self.ask("POST", "/api/v1/model", json=registration)


@contextlib.contextmanager
def at_work(works: Sequence[Callable[[threading.Event], None]]) -> Iterator[None]:
    """Each in a thread, told when it is enough; ends when all have ended, or fails as the first of them did."""
    enough = threading.Event()
    with ThreadPoolExecutor(len(works)) as pool:
        jobs = [pool.submit(work, enough) for work in works]
        try:
            yield
        finally:
            enough.set()
        for job in jobs:
            job.result()


class Load:
    """Clients that publish and download, each in a thread, until it is enough."""

    def __init__(self, urls: Sequence[str], *, clients: int, what: str) -> None:
        self.records: dict[str, dict[str, Any]] = {}
        self._clients = [Client(url, f"{what}{number}") for number, url in zip(range(clients), itertools.cycle(urls))]
        self._what = what

    @property
    def failures(self) -> Counter[str]:
        return sum((client.failures for client in self._clients), Counter())

    @property
    def answered(self) -> dict[tuple[str, str], str]:
        """Digests of all that was registered, by name and version."""
        return {(name, "1"): sha256(content_of(name)) for name in self.records}

    @contextlib.contextmanager
    def running(self) -> Iterator["Load"]:
        """In the end every client has an answer for all it began."""
        works = [partial(self._work, number, client) for number, client in enumerate(self._clients)]
        with at_work(works):
            yield self

    def _work(self, number: int, client: Client, enough: threading.Event) -> None:
        with contextlib.closing(client):
            for count in itertools.count():
                if enough.is_set():
                    return
                name = f"{self._what}{number}-{count}"
                self.records[name] = client.publish(name, content_of(name))
                client.download(self.records[client.chance.choice(list(self.records))])


@dataclass(frozen=True)
class Audited:
    """What was found, all of it sound."""

    rows: Sequence[Mapping[str, Any]]
    """All versions, those that are deleted too."""
    uploads: int
    lines: int

    @property
    def live(self) -> dict[tuple[str, str], str]:
        """Digests of versions that are not deleted, by name and version."""
        return {(row["name"], row["version"]): row["sha256"] for row in self.rows if row["deleted_at"] is None}


def audit_of(settings: Settings) -> Audited:
    """Check that nothing is lost and nothing half done, while no server is at work.

    Besides what `look_at` checks: after a collection, the store has what is referred to and nothing else.
    """

    async def work() -> Audited:
        async with Service.open(settings) as service:
            audited = await _look(service, set())
            await until_collected(service)
            async with service.database.read() as connection:
                assert (await connection.execute(select(garbage))).all() == []
                rows = [
                    segments
                    for table in (objects, uploads)
                    for segments in (await connection.execute(select(table.c.segments))).scalars()
                ]
                digests = set((await connection.execute(select(objects.c.sha256))).scalars())
            assert digests == {digest for row in audited.rows for digest in _digests(row)}
            assert set(await stored(service)) == {location for segments in rows for location, _ in segments}
            return audited

    return asyncio.run(work())


def look_at(settings: Settings, known: set[str]) -> Audited:
    """Check what is on record; `known` digests, to which others are added, are not computed again.

    Every version, deleted ones too, has its bytes: right sizes, right SHA-256. Files under way have what they say.
    Each version has one line `upload` in the audit, whose chain holds.
    """

    async def work() -> Audited:
        async with Service.open(settings) as service:
            return await _look(service, known)

    return asyncio.run(work())


async def _look(service: Service, known: set[str]) -> Audited:
    async with service.database.read(snapshot=True) as connection:
        rows: list[dict[str, Any]] = [
            dict(row._mapping) for table in (models, datasets) for row in await connection.execute(select(table))
        ]
        found = {row.sha256: row for row in await connection.execute(select(objects))}
        files = list(await connection.execute(select(uploads)))
        uploaded = select(audit_lines.c.identifier).where(audit_lines.c.action == "upload")
        logged = Counter((await connection.execute(uploaded)).scalars())
        verdict = await audit.verify(connection)
    assert verdict.problem is None
    for row in rows:
        assert logged[row["id"]] == 1, row
        for digest, size in _digests(row).items():
            assert found[digest].size == size
            if digest not in known:
                assert await _digest(service.store, found[digest].segments) == digest
                known.add(digest)
    for file in files:
        assert sum(size for _, size in file.segments) == file.received
        assert file.sha256 in (None, await _digest(service.store, file.segments))
    return Audited(rows, len(files), verdict.entries)


def _digests(row: Mapping[str, Any]) -> dict[str, int]:
    """Digests and sizes of a version's bytes."""
    names = ("sha256",) if "size" in row else ("dataset_sha256", "data_model_sha256")
    return {row[name]: row[name.replace("sha256", "size")] for name in names}


async def until_collected(service: Service, grace_days: float = FOREVER_DAYS) -> None:
    """Collect until there is nothing to collect."""
    for _ in range(4):
        done = await collect.collect(service.database, service.store, grace_days=grace_days, settle_s=0, orphan_s=0)
        if done == Collected():
            return
    raise AssertionError(done)


async def _digest(store: Store, segments: Sequence[Sequence[Any]]) -> str:
    """SHA-256 of all there is at these places, each as long as it should be."""
    hashing = hashlib.sha256()
    for location, size in segments:
        assert await store.size(location) == size, location
        async for block in store.read(location, 0, size):
            hashing.update(block)
    return f"sha256:{hashing.hexdigest()}"


async def stored(service: Service) -> dict[str, int]:
    """Sizes of all that the store has, locked or not, by location."""
    if service.settings.on_s3:
        return {segment.location: segment.size async for segment in service.store.list(older_than_s=0)}
    return files_of(Path(service.settings.store))


def files_of(store: Path) -> dict[str, int]:
    """Sizes of all files of a folder store by location."""
    found = [path for path in store.rglob("*") if path.is_file()]
    return {path.relative_to(store).as_posix(): path.stat().st_size for path in found}


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.01)


def given_of(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.model_fields_set}


def upload(api: httpx.Client, data: bytes = b"bytes", version: str = "1") -> httpx.Response:
    return api.post("/api/v1/model", data={"name": "churn", "version": version}, files={"file": data})


def begin_upload(api: httpx.Client) -> socket.socket:
    """Send half an upload of 8 MiB; the server waits for the rest."""
    connection = socket.create_connection((api.base_url.host, api.base_url.port or 80))
    connection.settimeout(60)
    connection.sendall(
        b"POST /api/v1/model?name=churn&version=1 HTTP/1.1\r\nHost: a\r\n"
        b"Content-Type: application/octet-stream\r\nContent-Length: 8388608\r\n\r\n" + b"x" * 4 * MIB
    )
    return connection


def status_of(connection: socket.socket) -> int:
    return int(connection.recv(4096).split()[1])


def assert_nothing_is_there(api: httpx.Client, settings: Settings) -> None:
    if not settings.on_s3:
        until(lambda: not files_of(Path(settings.store)))
    assert api.get("/api/v1/model_catalog").status_code == 404
    assert audit_of(settings).rows == []
