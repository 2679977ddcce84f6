"""The sharing APIs: bytes in and out, records, start and audit, growth; ours beside its peers, in one run.

    .venv/bin/python benchmarks/sharing.py [SECTION...] [--mib 1024] [--rounds 3] [--full]

Sections are upload, download, s3, metadata, start and growth; all of them when none is named. Everything is on
loopback and on this disk, in a folder that is gone afterwards. Ours runs as its users run it: tokens on, every upload
and download in the audit before it is answered, synced to disk. Peers run as theirs do: MLflow's server with its
artifact proxy (requirements/mlflow.txt, in `.venv-mlflow`), nginx with sendfile and without a log, boto3 against the
same S3 server, versitygw, and for uploads the barest receiver (common/barest.py), to see what the machine allows.
Clients cost little: sendfile, one buffer, a process of their own. Sides take turns; figures are medians. Nothing fails
on a time.

PostgreSQL is that of the tests, which does not sync to disk; that counts for what is written, not for what is read.
With `--full` 8 GiB are sent too, to see that memory stays where it is.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from rich.table import Table

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT), str(PROJECT / "sharing_apis" / "tests")]

from postgres import postgresql  # noqa: E402

from benchmarks.common.load import Load, load  # noqa: E402
from benchmarks.common.records import (  # noqa: E402
    PER_NAME,
    by_id,
    by_version,
    database_of,
    fill_mlflow,
    fill_postgresql,
    fill_sqlite,
    name_of,
    pages,
    pages_of_name,
)  # fmt: skip
from benchmarks.common.servers import MLFLOW, Server, barest, mlflow, nginx, ours, run  # noqa: E402
from benchmarks.common.tables import columns, show  # noqa: E402
from benchmarks.common.wire import FORM, MIB, Answer, Connection, Part, form, request  # noqa: E402
from hxmlops_sharing.audit import AuditLog, Line, verify  # noqa: E402 - the project is no installed package
from hxmlops_sharing.database import Database  # noqa: E402
from hxmlops_sharing.settings import read_settings  # noqa: E402

OCTET_STREAM = {"Content-Type": "application/octet-stream"}
TUS_PIECE = 64 * MIB
MANY = 16
SMALL = 4096
SHA256_BYTES = 32
VERSIONS = 100_000
GROWTH = (1_000, 100_000, 1_000_000)
STARTS = 5
AUDIT_LINES = 20_000


@dataclass
class Bench:
    """What all sections share."""

    folder: Path
    mib: int
    rounds: int
    seconds: float
    versions: int
    full: bool
    _files: int = field(default=0)

    def file(self) -> Path:
        """`mib` MiB of random bytes, others than any time before."""
        path = self.folder / "bytes"
        if not path.exists():
            with path.open("wb") as file:
                for _ in range(self.mib):
                    file.write(os.urandom(MIB))
        self._files += 1
        with path.open("r+b") as file:
            for offset in range(0, self.mib * MIB, MIB):
                os.pwrite(file.fileno(), self._files.to_bytes(8), offset)
        return path

    @property
    def size(self) -> int:
        return self.mib * MIB

    def place(self, name: str) -> Path:
        """A new folder."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))

    def turns(self, sides: Mapping[str, Callable[[], float]], times: int = 1) -> dict[str, list[float]]:
        """Each side's figures of `times` all rounds; in each they take turns, in the other order every second time.

        Before, each has a go that does not count.
        """
        figures: dict[str, list[float]] = {name: [] for name in sides}
        for work in sides.values():
            work()
        for number in range(self.rounds * times):
            for name in sides if number % 2 == 0 else reversed(list(sides)):
                os.sync()  # what another has left to the disk is not this one's burden
                figures[name].append(sides[name]())
        return figures


def upload(bench: Bench) -> None:
    """Uploads: speed beside MLflow and beside SHA-256 alone, memory, many at once."""
    with contextlib.ExitStack() as stack:
        place = bench.place("upload")
        server = stack.enter_context(ours(place))
        sides = {
            "ours, form": lambda: speed(bench, lambda path: send_form(server, path, bench.size), place / "store"),
            "ours, raw body": lambda: speed(bench, lambda path: send_raw(server, path, bench.size), place / "store"),
            "ours, tus by 64 MiB": lambda: speed(
                bench, lambda path: send_tus(server, path, bench.size), place / "store"
            ),
            "SHA-256 alone": lambda: bench.mib / sha256_alone(bench.file()),
        }
        bare_place = bench.place("barest")
        bare = stack.enter_context(barest(bare_place, bench.size))
        sides["the barest receiver"] = lambda: speed(bench, lambda path: send_bare(bare, path, bench.size), bare_place)
        if MLFLOW.exists():
            theirs = bench.place("mlflow")
            peer = stack.enter_context(mlflow(theirs))
            sides["MLflow's artifact proxy"] = lambda: speed(
                bench, lambda path: send_mlflow(peer, path, bench.size), theirs / "artifacts"
            )
        else:
            missing("MLflow", "make .venv-mlflow/.done")
        figures = bench.turns(sides)
        ratios = [
            (side, other, target)
            for side in sides
            if side.startswith("ours")
            for other, target in (("MLflow's artifact proxy", "1.6"), ("SHA-256 alone", "0.5"))
        ]
        ratios.append(("the barest receiver", "SHA-256 alone", ""))
        show(speeds(f"Upload of {bench.mib} MiB", figures, ratios))

        table = columns("Memory of our server while it receives", "what", "MiB/s", "idle MiB", "peak above", "target")
        amounts = [1, 8] if bench.full else [1]
        for times in amounts:
            for name, send in (("form", send_form), ("raw body", send_raw)):
                path, idle = bench.file(), settled(server)
                server.forget_peak()
                took = timed(lambda send=send, path=path, times=times: send(server, path, bench.size, times))  # type: ignore[misc]
                table.add_row(
                    f"{name}, {bench.mib * times} MiB", f"{bench.mib * times / took:,.0f}", f"{idle:.0f}",
                    f"{server.peak() - idle:.1f}", "< 60 MiB",
                )  # fmt: skip
                empty(place / "store")
        path, idle = bench.file(), settled(server)
        server.forget_peak()
        took = timed(lambda: at_once(server, path, bench.size // MANY))
        table.add_row(
            f"{MANY} raw bodies of {bench.mib / MANY:g} MiB at once", f"{bench.mib / took:,.0f}", f"{idle:.0f}",
            f"{server.peak() - idle:.1f}", "",
        )  # fmt: skip
        show(table)


def download(bench: Bench) -> None:
    """Downloads: whole and a range, beside nginx."""
    with contextlib.ExitStack() as stack:
        place = bench.place("download")
        path = bench.file()
        plain = stack.enter_context(ours(place))
        identifier = send_raw(plain, path, bench.size)
        signing = stack.enter_context(ours(place, receipts=True))
        whole = f"/api/v1/model/by_id/{identifier}"
        part = {"Range": f"bytes={MIB}-"}

        def fetch(
            server: Server, path: str, headers: Mapping[str, str] | None = None, *, receipt: bool = False
        ) -> float:
            with server.connect() as connection:
                begun = time.perf_counter()
                connection.send("GET", path, None, headers)
                answer = connection.read().ok()
                if receipt:
                    receipt_of(connection, answer)
                return answer.size / MIB / (time.perf_counter() - begun)

        sides: dict[str, Callable[[], float]] = {
            "ours, whole": lambda: fetch(plain, whole),
            "ours, all but the first MiB": lambda: fetch(plain, whole, part),
            "ours, whole, and its signed receipt": lambda: fetch(signing, whole, receipt=True),
        }
        if program := shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"):
            served = bench.place("nginx-files")
            os.link(path, served / "bytes")
            for each in (bench.folder, served):
                each.chmod(0o755)
            path.chmod(0o644)
            peer = stack.enter_context(nginx(program, bench.place("nginx"), served))
            sides["nginx, whole"] = lambda: fetch(peer, "/bytes")
            sides["nginx, all but the first MiB"] = lambda: fetch(peer, "/bytes", part)
        else:
            missing("nginx", "install Debian's nginx-light")
        ratios = [(each, each.replace("ours", "nginx"), "1.2") for each in list(sides)[:2]]
        ratios.append((list(sides)[2], "nginx, whole", "1.2"))
        show(speeds(f"Download of {bench.mib} MiB", bench.turns(sides, times=5), ratios))
        table = columns("Memory of our server while it sends", "what", "idle MiB", "peak above")
        for name, headers in (("whole", None), ("all but the first MiB", part)):
            idle = settled(plain)
            plain.forget_peak()
            fetch(plain, whole, headers)
            table.add_row(name, f"{idle:.0f}", f"{plain.peak() - idle:.1f}")
        show(table)


def s3(bench: Bench) -> None:
    """Through our API to S3 and back, beside boto3 straight to the same server."""
    program = os.environ.get("HXMLOPS_S3_SERVER") or versitygw()
    if program is None:
        missing("the S3 server", "build it by tests/cluster/tools/build (needs Go), or name one in HXMLOPS_S3_SERVER")
        return
    os.environ["HXMLOPS_S3_SERVER"] = program
    from s3_server import BUCKET, running

    with contextlib.ExitStack() as stack:
        stored = stack.enter_context(running(bench.place("s3")))
        records = bench.place("s3-records")
        server = stack.enter_context(ours(records, settings=stored.settings))
        redirecting = stack.enter_context(ours(records, settings={**stored.settings, "s3_redirect": True}))
        client: Any = stored.client()

        def put_direct(path: Path) -> None:
            client.upload_file(str(path), BUCKET, "direct")

        def get_direct() -> float:
            begun, size = time.perf_counter(), 0
            body = client.get_object(Bucket=BUCKET, Key="direct")["Body"]
            for block in body.iter_chunks(MIB):
                size += len(block)
            if size != bench.size:
                raise RuntimeError(f"{size} bytes came")
            return bench.mib / (time.perf_counter() - begun)

        latest = 0

        def put(path: Path) -> None:
            nonlocal latest
            latest = send_raw(server, path, bench.size)

        def get() -> float:
            with server.connect() as connection:
                begun = time.perf_counter()
                connection.send("GET", f"/api/v1/model/by_id/{latest}")
                connection.read().ok()
                return bench.mib / (time.perf_counter() - begun)

        def get_redirected() -> float:
            begun = time.perf_counter()
            with redirecting.connect() as connection:
                found = urlsplit(connection.call("GET", f"/api/v1/model/by_id/{latest}").header("location"))
            with Connection(found.port or 80) as connection:
                connection.send("GET", f"{found.path}?{found.query}", None, {"Host": found.netloc})
                size = connection.read().ok().size
            if size != bench.size:
                raise RuntimeError(f"{size} bytes came")
            return bench.mib / (time.perf_counter() - begun)

        puts = bench.turns({"ours": lambda: speed(bench, put), "boto3, direct": lambda: speed(bench, put_direct)})
        ratios = [("ours", "boto3, direct", "0.7")]
        show(speeds(f"Put {bench.mib} MiB on S3", puts, ratios))
        gets = bench.turns({"ours": get, "ours, redirected to S3": get_redirected, "boto3, direct": get_direct})
        ratios.append(("ours, redirected to S3", "boto3, direct", "0.7"))
        show(speeds(f"Get {bench.mib} MiB from S3", gets, ratios))
        table = columns("Memory of our server in front of S3", "what", "idle MiB", "peak above")
        works: dict[str, Callable[[], float]] = {"put": lambda: speed(bench, put), "get": get}
        for name, work in works.items():
            idle = settled(server)
            server.forget_peak()
            work()
            table.add_row(name, f"{idle:.0f}", f"{server.peak() - idle:.1f}")
        show(table)


def metadata(bench: Bench) -> None:
    """Records by id and the catalogue, beside MLflow's registry."""
    count = min(VERSIONS, bench.versions)
    draw = random.Random(1)  # noqa: S311
    some = [draw.randint(1, count) for _ in range(5000)]
    title = f"Records of {count:,} versions, {MANY} connections"
    table = columns(title, "what", "answers/s", "p50 ms", "p99 ms", "client's CPU", "x MLflow", "target")
    with contextlib.ExitStack() as stack:
        theirs = mlflow_rates(bench, count, some, table)

        def add(what: str, server: Server, paths: Sequence[str], against: str, target: str = "") -> None:
            figures = asked(bench, server, paths)
            ratio = f"{figures.rate / theirs[against]:.1f}" if against in theirs else ""
            table.add_row(what, *said(figures), ratio, target)

        place = bench.place("records")
        server = stack.enter_context(ours(place))
        fill_sqlite(place / "records.sqlite", 0, count)
        postgres = stack.enter_context(postgresql())
        settings = postgres.database()
        other = stack.enter_context(ours(bench.place("records-postgresql"), settings=settings))
        fill_postgresql(postgres, settings, 0, count)
        for name, each in (("SQLite", server), ("PostgreSQL", other)):
            add(f"ours on {name}, by id and version", each, by_version(some), "a version", ">= 40")
            add(f"ours on {name}, by id, the latest of its name", each, by_id(some), "a version", ">= 40")
            add(f"ours on {name}, 100 of the catalogue", each, pages(some), "100 versions", ">= 40")
            add(f"ours on {name}, the 100 of a name", each, pages_of_name(some), "100 versions of a name", ">= 40")
        show(table)
        table = columns(f"The whole catalogue, {count:,} records", "database", "s", "MiB", "peak above idle, MiB")
        for name, each in (("SQLite", server), ("PostgreSQL", other)):
            idle = settled(each)
            each.forget_peak()
            with each.connect() as connection:
                begun = time.perf_counter()
                answer = connection.call("GET", "/api/v1/model_catalog").ok()
                took = time.perf_counter() - begun
            table.add_row(name, f"{took:.2f}", f"{answer.size / MIB:.1f}", f"{each.peak() - idle:.0f}")
        show(table)


def mlflow_rates(bench: Bench, count: int, some: Sequence[int], table: Table) -> dict[str, float]:
    """Answers a second of MLflow's registry with as many versions; none where it is not here."""
    if not MLFLOW.exists():
        missing("MLflow", "make .venv-mlflow/.done")
        return {}
    place, rates = bench.place("mlflow"), {}
    with mlflow(place) as peer:
        fill_mlflow(place, count)
        first = [f"/api/2.0/mlflow/model-versions/get?name={name_of(1)}&version=1"]
        asked(bench, peer, first)  # each of its workers opens the database when it is first asked
        for what, paths in {
            "a version": [f"get?name={name_of(n)}&version={(n - 1) % PER_NAME + 1}" for n in some],
            "100 versions": ["search?max_results=100"],  # the first page, its cheapest
            "100 versions of a name": [f"search?max_results=100&filter=name%3D'{name_of(n)}'" for n in some],
        }.items():
            figures = asked(bench, peer, [f"/api/2.0/mlflow/model-versions/{path}" for path in paths])
            rates[what] = figures.rate
            table.add_row(f"MLflow on SQLite, {what}", *said(figures), "", "")
    return rates


def start(bench: Bench) -> None:
    """Time until ready; what audit and receipts cost."""
    place = bench.place("start")
    with ours(place):
        pass
    fill_sqlite(place / "records.sqlite", 0, min(VERSIONS, bench.versions))
    empty_python = [timed(lambda: subprocess.run([sys.executable, "-c", ""], check=True)) for _ in range(STARTS)]
    table = columns("Start on an existing database", "what", "s")
    table.add_row("from the command to /ready", spread([until_ready(place) for _ in range(STARTS)], 2))
    table.add_row("   a Python that does nothing", spread(empty_python, 2))
    show(table)

    table = columns("The audit by itself", "what", "lines/s", "us a line")
    with postgresql() as postgres:
        for name, settings in (
            ("SQLite, synced", {"database": str(place / "audit.sqlite")}),
            ("PostgreSQL, not synced", postgres.database()),
        ):
            for what, rate in asyncio.run(audit_rates(settings)).items():
                table.add_row(f"{name}: {what}", f"{rate:,.0f}", f"{1e6 / rate:.1f}")
    show(table)

    table = columns(f"Small downloads ({SMALL} bytes), {MANY} connections, SQLite synced", "what", *HEADS)
    for receipts in (False, True):
        with ours(place, receipts=receipts) as server:
            with server.connect() as connection:
                path = "/api/v1/model?name=small&version=" + ("2" if receipts else "1")
                identifier = record_of(connection.call("POST", path, os.urandom(SMALL), OCTET_STREAM).ok().body)
                answer = connection.call("GET", f"/api/v1/model/by_id/{identifier}").ok()
                if receipts:
                    receipt_of(connection, answer)
            figures = asked(bench, server, [f"/api/v1/model/by_id/{identifier}"])
            table.add_row("download, " + ("receipts on" if receipts else "receipts off"), *said(figures))
            if receipts:
                table.add_row("receipt, signed", *said(asked(bench, server, [answer.header("x-hxmlops-receipt")])))
            else:
                record = f"/api/v1/model/{identifier}/data"
                table.add_row("its record, for comparison", *said(asked(bench, server, [record])))
    show(table)


def growth(bench: Bench) -> None:
    """What more versions cost, on PostgreSQL."""
    sizes = [size for size in GROWTH if size <= bench.versions]
    rows: dict[str, list[str]] = {}
    with postgresql() as postgres:
        settings = postgres.database()
        place = bench.place("growth")
        with ours(place, settings=settings) as server:
            person = signed_in(server)
            have = 0
            for size in sizes:
                filling = timed(lambda size=size, have=have: fill_postgresql(postgres, settings, have, size))  # type: ignore[misc]
                draw = random.Random(size)  # noqa: S311
                some = [draw.randint(1, size) for _ in range(2000)]
                have = size
                for name, paths in {
                    "by id and version": by_version(some),
                    "latest of its name": by_id(some),
                    "100 of the catalogue": pages(some),
                    "the 100 of a name": pages_of_name(some),
                    "the page for people": ["/catalogue"],
                }.items():
                    figures = asked(bench, person if paths == ["/catalogue"] else server, paths, connections=1)
                    rows.setdefault(f"{name}, ms", []).append(f"{figures.p50_ms:.2f} ({figures.p99_ms:.2f})")
                took = [timed(lambda: small_upload(server)) * 1000 for _ in range(100)]
                postgres.sql("DELETE FROM models WHERE name = 'small'", database_of(settings))
                slow = statistics.quantiles(took, n=100)[98]
                rows.setdefault("upload of 1 KiB, ms", []).append(f"{statistics.median(took):.2f} ({slow:.2f})")
                values = {"kind": "model", "store": place / "store", "tokens": place / "tokens.json", **settings}
                collected = timed(lambda values=values: run(values, "collect", "--dry-run"))  # type: ignore[misc]
                rows.setdefault("collect --dry-run, s", []).append(f"{collected:.2f}")
                rows.setdefault("memory of the server, MiB", []).append(f"{server.memory():.0f}")
                rows.setdefault("(filling the tables, s)", []).append(f"{filling:.1f}")
    table = columns(
        "Growth on PostgreSQL, one connection, median (p99)", "what", *(f"{size:,} versions" for size in sizes)
    )
    for name, cells in rows.items():
        table.add_row(name, *cells)
    show(table)


SECTIONS = {
    "upload": upload, "download": download, "s3": s3, "metadata": metadata, "start": start, "growth": growth,
}  # fmt: skip


def send_raw(server: Server, path: Path, size: int, times: int = 1, offset: int = 0) -> int:
    """Register the bytes as a new version; its identifier."""
    with server.connect() as connection:
        connection.send(
            "POST", f"/api/v1/model?name=raw&version={os.urandom(8).hex()}", [Part(path, size, offset, times)],
            OCTET_STREAM,
        )  # fmt: skip
        return record_of(connection.read().ok().body)


def send_form(server: Server, path: Path, size: int, times: int = 1) -> int:
    fields = {"name": "form", "version": os.urandom(8).hex(), "status": "production"}
    with server.connect() as connection:
        connection.send("POST", "/api/v1/model", form(fields, [Part(path, size, times=times)]), FORM)
        return record_of(connection.read().ok().body)


def send_tus(server: Server, path: Path, size: int) -> int:
    with server.connect() as connection:
        connection.headers["Tus-Resumable"] = "1.0.0"
        location = connection.call("POST", "/api/v1/files", b"", {"Upload-Length": str(size)}).ok().header("location")
        for offset in range(0, size, TUS_PIECE):
            piece = Part(path, min(TUS_PIECE, size - offset), offset)
            connection.send(
                "PATCH",
                location,
                [piece],
                {"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)},
            )
            connection.read().ok()
        body = f'{{"name": "tus", "version": "{os.urandom(8).hex()}", "file": "{location}"}}'.encode()
        answer = connection.call("POST", "/api/v1/model", body, {"Content-Type": "application/json"}).ok()
        return record_of(answer.body)


def send_bare(server: Server, path: Path, size: int) -> None:
    with server.connect() as connection:
        connection.send_body([Part(path, size)])
        if len(connection.socket.recv(SHA256_BYTES, socket.MSG_WAITALL)) != SHA256_BYTES:
            raise RuntimeError("no digest")


def send_mlflow(server: Server, path: Path, size: int) -> None:
    with server.connect() as connection:
        connection.send(
            "PUT", f"/api/2.0/mlflow-artifacts/artifacts/{os.urandom(8).hex()}/model", [Part(path, size)],
            OCTET_STREAM,
        )  # fmt: skip
        connection.read().ok()


def at_once(server: Server, path: Path, size: int) -> None:
    """MANY uploads side by side, each of other bytes. RuntimeError unless all are answered."""
    done: list[int] = []
    threads = [
        threading.Thread(target=lambda number=number: done.append(send_raw(server, path, size, offset=number * size)))
        for number in range(MANY)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if len(set(done)) != MANY:
        raise RuntimeError(f"{len(set(done))} of {MANY} uploads were answered")


def small_upload(server: Server) -> None:
    path = f"/api/v1/model?name=small&version={os.urandom(8).hex()}"
    with server.connect() as connection:
        connection.call("POST", path, os.urandom(1024), OCTET_STREAM).ok()


def receipt_of(connection: Connection, download: Answer) -> bytes:
    """The signed receipt, as soon as the server has written down that the download ended."""
    while (answer := connection.call("GET", download.header("x-hxmlops-receipt"))).status == 409:
        time.sleep(0.001)
    return answer.ok().body


def sha256_alone(path: Path) -> float:
    """Seconds that hashing takes in a process that does nothing else."""
    program = (
        "import hashlib, sys, time\n"
        "with open(sys.argv[1], 'rb') as file:\n"
        "    begun = time.perf_counter()\n"
        "    hashlib.file_digest(file, 'sha256')\n"
        "    print(time.perf_counter() - begun)"
    )
    done = subprocess.run([sys.executable, "-c", program, path], check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


def asked(bench: Bench, server: Server, paths: Sequence[str], connections: int = MANY) -> Load:
    wanted = [request("GET", path, server.headers) for path in paths]
    return load(server.port, wanted, connections=connections, seconds=bench.seconds)


def signed_in(server: Server) -> Server:
    """The server as a browser sees it that has a session on the page for people."""
    with Connection(server.port) as connection:
        page = connection.call("GET", "/catalogue/login").ok()
        hidden = dict(re.findall(r'name="(\w+)"[^>]*value="([^"]*)"', page.body.decode()))
        hidden["token"] = server.headers["Authorization"].removeprefix("Bearer ")
        form = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": page.header("set-cookie").split(";")[0]}
        answer = connection.call("POST", "/catalogue/login", urlencode(hidden).encode(), form)
        cookies = re.findall(rb"\r\nset-cookie: *(hxmlops-session[^;]*)", answer.head, re.IGNORECASE)
        if not cookies:
            raise RuntimeError(f"no session: {answer.status} {answer.body[:500]!r}")
    return replace(server, headers={"Cookie": cookies[0].decode()})


async def audit_rates(settings: Mapping[str, Any]) -> dict[str, float]:
    """Lines a second: durable ones of one writer and of many at once, notes, and verification."""
    database = Database(read_settings(kind="model", auth="none", store="unused", **settings))
    await database.open()
    log, rates = AuditLog(database), {}
    line = Line("download", "benchmark", kind="model", identifier=1, name="model", version="1.0", request_id="0" * 16)

    async def write(count: int) -> None:
        for _ in range(count):
            await log.write(line)

    for what, writers, count in (("one at a time, durable", 1, AUDIT_LINES // 100),
                                 ("256 at once, durable", 256, AUDIT_LINES // 256)):  # fmt: skip
        begun = time.perf_counter()
        await asyncio.gather(*(write(count) for _ in range(writers)))
        rates[what] = writers * count / (time.perf_counter() - begun)
    lines = [Line("read", "benchmark", kind="model", identifier=each % 1000) for each in range(AUDIT_LINES)]
    begun = time.perf_counter()
    for each in lines:
        log.note(each)
    rates["noting a read, merged within a second"] = len(lines) / (time.perf_counter() - begun)
    await log.close()
    begun = time.perf_counter()
    async with database.read(snapshot=True) as connection:
        verdict = await verify(connection)
    rates["verifying"] = verdict.entries / (time.perf_counter() - begun)
    if verdict.problem:
        raise RuntimeError(verdict.problem)
    await database.close()
    return rates


def until_ready(place: Path) -> float:
    """Seconds from the command until /ready says so."""
    with ours(place) as server:
        return server.ready_s


def versitygw() -> str | None:
    """The S3 server of the test clusters; None where it cannot be built."""
    from tests.cluster.clusters import tools

    try:
        return str(tools()["versitygw"] / "versitygw")
    except (OSError, subprocess.CalledProcessError):
        return None


def speed(bench: Bench, work: Callable[[Path], object], store: Path | None = None) -> float:
    """MiB/s of work on a file with other bytes than ever; what it left in the store is removed."""
    path = bench.file()
    took = timed(lambda: work(path))
    if store is not None:
        empty(store)
    return bench.mib / took


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def empty(store: Path) -> None:
    """Remove all files, so that the disk does not fill; the folders stay."""
    for path in store.rglob("*"):
        if path.is_file():
            path.unlink()


def settled(server: Server) -> float:
    """MiB that the server holds when nothing happens."""
    time.sleep(1)
    return server.memory()


def record_of(body: bytes) -> int:
    return int(json.loads(body)["modelIdentifier"])


HEADS = ("answers/s", "p50 ms", "p99 ms", "client's CPU")


def said(figures: Load) -> tuple[str, str, str, str]:
    return f"{figures.rate:,.0f}", f"{figures.p50_ms:.2f}", f"{figures.p99_ms:.2f}", f"{figures.client_cpu:.0%}"


def spread(figures: Sequence[float], digits: int = 0) -> str:
    """Median, and lowest and highest where there are several."""
    middle = f"{statistics.median(figures):,.{digits}f}"
    return middle + (f" ({min(figures):,.{digits}f}-{max(figures):,.{digits}f})" if len(figures) > 1 else "")


def speeds(title: str, figures: Mapping[str, Sequence[float]], ratios: Sequence[tuple[str, str, str]]) -> Table:
    """A row for each side. `ratios` are of one side to another, with the target."""
    table = columns(title, "what", "MiB/s", "is")
    for name, each in figures.items():
        cells = []
        for side, other, target in ratios:
            if side == name and other in figures:
                times = statistics.median(each) / statistics.median(figures[other])
                cells.append(f"{times:.2f} x {other}" + (f" (target >= {target})" if target else ""))
        table.add_row(name, spread(each), "; ".join(cells))
    return table


def missing(what: str, advice: str) -> None:
    print(f"{what} is not here, so there is no comparison with it: {advice}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; default: all")
    parser.add_argument("--mib", type=int, default=1024, help="size of the files; default 1024")
    parser.add_argument("--rounds", type=int, default=3, help="how often each speed is measured; default 3")
    parser.add_argument("--seconds", type=float, default=5, help="how long each load lasts; default 5")
    parser.add_argument("--versions", type=int, default=GROWTH[-1], help=f"at most; default {GROWTH[-1]:,}")
    parser.add_argument("--full", action="store_true", help="send eight times the size too, for memory")
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}: there are {', '.join(SECTIONS)}")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    folder = Path(tempfile.mkdtemp(prefix="hxmlops-sharing-"))
    try:
        bench = Bench(folder, options.mib, options.rounds, options.seconds, options.versions, options.full)
        for name in options.sections or SECTIONS:
            SECTIONS[name](bench)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
