"""An hour's worth of mixed load on one server in ten minutes: what grows, what leaks, what stalls.

    .venv/bin/python benchmarks/soak.py [--minutes 10] [--workers 8] [--postgresql]

Clients publish by form, raw body and tus, download whole and by Range, read records and the catalogue, set aliases,
delete and restore, are refused, and leave amid uploads and downloads; the server collects garbage four times a minute.
Every byte that comes is compared. The server's process is looked at from outside every second; how late its event loop
is, is measured inside (common/heartbeat.py). Nothing fails on a time: the exit code is 1 for wrong bytes, for answers
that should not be, for descriptors that stay open, and for an audit that does not verify.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT), str(PROJECT / "sharing_apis" / "tests")]

from postgres import postgresql  # noqa: E402

from benchmarks.common.servers import Server, ours, run  # noqa: E402
from benchmarks.common.tables import columns, show  # noqa: E402
from benchmarks.common.wire import FORM, MIB, Answer, Part, form, request  # noqa: E402

WARM_UP_S = 20
QUIET_S = 6
NAMES = 40
BASE = 32 * MIB
SIZES = ((1 << 10, 64 << 10, 70), (64 << 10, 2 << 20, 26), (8 << 20, 24 << 20, 4))
"""From, to, and how often of a hundred."""
SMALL = 64 << 10
MARGIN = 24
"""Descriptors more than before that pools of connections may hold."""
STALL_MS = 100
SETTINGS = {"collect_every_minutes": 0.25, "grace_days": 0.0002, "upload_expiry_hours": 0.01}
OCTET_STREAM = {"Content-Type": "application/octet-stream"}
JSON = {"Content-Type": "application/json"}
TUS = {"Tus-Resumable": "1.0.0"}
OFFSET = {"Content-Type": "application/offset+octet-stream"}


class Wrong(Exception):
    """An answer that should not be."""


@dataclass(frozen=True)
class Content:
    """Bytes that are told again rather than kept: 16 of their own, then some of BASE random ones."""

    head: bytes
    offset: int
    size: int

    def pieces(self, base: memoryview, start: int = 0, stop: int | None = None) -> list[bytes | memoryview]:
        """Its bytes from `start` to `stop` (exclusive)."""
        stop = self.size if stop is None else stop
        ours = self.head[start:stop]
        shift = self.offset - len(self.head)
        return [ours, base[shift + max(start, len(self.head)) : shift + max(stop, len(self.head))]]


@dataclass(frozen=True)
class Version:
    identifier: int
    name: str
    version: str
    content: Content


@dataclass
class Seen:
    """What all workers have seen."""

    requests: Counter[int] = field(default_factory=Counter)
    """By minute."""
    took: dict[tuple[int, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    """Seconds of each small request by minute and kind."""
    actions: Counter[str] = field(default_factory=Counter)
    busy: Counter[int] = field(default_factory=Counter)
    """503 and the like, by status: times, not faults."""
    wrong: list[str] = field(default_factory=list)
    bytes_in: int = 0
    bytes_out: int = 0


class Comparison:
    """Compares bytes as they come with those expected."""

    def __init__(self, pieces: Sequence[bytes | memoryview]) -> None:
        self._expected = memoryview(b"".join(pieces))
        self.size = 0
        self.same = True

    def see(self, data: memoryview) -> None:
        self.same = self.same and data == self._expected[self.size : self.size + len(data)]
        self.size += len(data)

    @property
    def whole(self) -> bool:
        return self.same and self.size == len(self._expected)


class Soak:
    def __init__(self, server: Server, base: memoryview) -> None:
        self.server = server
        self.base = base
        self.seen = Seen()
        self.lock = threading.Lock()
        self.versions: dict[int, Version] = {}
        self.deleted: list[Version] = []
        self.numbers = iter(range(1, 1 << 40))
        self.begun = time.monotonic()
        self.stopping = threading.Event()

    @contextlib.contextmanager
    def working(self, workers: int) -> Iterator[None]:
        """Workers at it, until the block ends."""
        self.stopping.clear()
        threads = [threading.Thread(target=Worker(self, number).work) for number in range(workers)]
        for each in threads:
            each.start()
        try:
            yield
        finally:
            self.stopping.set()
            for each in threads:
                each.join()

    def number(self) -> int:
        with self.lock:
            return next(self.numbers)

    def minute(self) -> int:
        return int((time.monotonic() - self.begun) // 60)

    def some(self, draw: random.Random) -> Version:
        with self.lock:
            return draw.choice(list(self.versions.values())[-2000:])


class Worker:
    """One client, with one connection kept open, at random work."""

    def __init__(self, soak: Soak, number: int) -> None:
        self.soak = soak
        self.draw = random.Random(number)  # noqa: S311
        self.connection = soak.server.connect()
        self.actions: tuple[tuple[int, Callable[[], None]], ...] = (
            (10, self.publish_form),
            (10, self.publish_raw),
            (6, self.publish_tus),
            (2, self.publish_again),
            (22, self.download),
            (16, self.download_part),
            (20, self.read_record),
            (6, self.read_catalogue),
            (4, self.read_names),
            (4, self.set_alias),
            (6, self.delete),
            (1, self.restore),
            (8, self.be_refused),
            (3, self.leave_upload),
            (3, self.leave_download),
            (1, self.leave_tus),
        )

    def work(self) -> None:
        with contextlib.suppress(OSError):
            self.publish_raw()
        weights = [weight for weight, _ in self.actions]
        while not self.soak.stopping.is_set():
            action = self.draw.choices(self.actions, weights)[0][1]
            try:
                action()
            except (OSError, ValueError, Wrong, KeyError) as error:
                self.reconnect()
                if not self.soak.stopping.is_set():
                    with self.soak.lock:
                        self.soak.seen.wrong.append(f"{action.__name__}: {type(error).__name__} {error}")
                    time.sleep(0.1)
            with self.soak.lock:
                self.soak.seen.actions[action.__name__] += 1
        self.connection.socket.close()

    def reconnect(self) -> None:
        self.connection.socket.close()
        self.connection = self.soak.server.connect()

    # uploads

    def new(self) -> tuple[str, str, Content]:
        least, most, _ = self.draw.choices(SIZES, [often for *_, often in SIZES])[0]
        size = self.draw.randint(least, most)
        head = self.soak.number().to_bytes(8) + self.draw.randbytes(8)
        name = f"model-{self.draw.randrange(NAMES)}"
        return name, f"1.{self.soak.number()}.0", Content(head, self.draw.randrange(16, BASE - size), size)

    def publish_form(self) -> None:
        name, version, content = self.new()
        fields = {"name": name, "version": version, "tag": "soak", "parameters": '{"trees": 100}'}
        body = form(fields, content.pieces(self.soak.base))
        self.published(self.ask("publish", content.size, "POST", "/api/v1/model", body, FORM), name, version, content)

    def publish_raw(self) -> None:
        name, version, content = self.new()
        self.publish(name, version, content)

    def publish(self, name: str, version: str, content: Content) -> None:
        path = f"/api/v1/model?name={name}&version={version}"
        answer = self.ask("publish", content.size, "POST", path, content.pieces(self.soak.base), OCTET_STREAM)
        self.published(answer, name, version, content)

    def publish_again(self) -> None:
        """The bytes of a version as another one, or a retry, which is the same one."""
        old = self.soak.some(self.draw)
        self.publish(old.name, f"1.{self.soak.number()}.0", old.content)

    def publish_tus(self) -> None:
        name, version, content = self.new()
        location = self.begin_tus(content)
        middle = self.draw.randrange(content.size)
        for start, stop in ((0, middle), (middle, content.size)):
            pieces = content.pieces(self.soak.base, start, stop)
            headers = TUS | OFFSET | {"Upload-Offset": str(start)}
            self.ask("", 0, "PATCH", location, pieces, headers, (204,))
        body = json.dumps({"name": name, "version": version, "file": location}).encode()
        self.published(self.ask("", 0, "POST", "/api/v1/model", [body], JSON), name, version, content)

    def begin_tus(self, content: Content) -> str:
        length = {"Upload-Length": str(content.size)}
        return self.ask("", 0, "POST", "/api/v1/files", [b""], TUS | length, (201,)).header("location")

    def published(self, answer: Answer, name: str, version: str, content: Content) -> None:
        if answer.status == 200:
            identifier = int(json.loads(answer.body)["modelIdentifier"])
            with self.soak.lock:
                self.soak.versions[identifier] = Version(identifier, name, version, content)
                self.soak.seen.bytes_in += content.size

    # reads

    def download(self) -> None:
        version = self.soak.some(self.draw)
        self.fetch(version, 0, version.content.size, {})

    def download_part(self) -> None:
        version = self.soak.some(self.draw)
        start = self.draw.randrange(version.content.size)
        stop = self.draw.randint(start + 1, version.content.size)
        self.fetch(version, start, stop, {"Range": f"bytes={start}-{stop - 1}"})

    def fetch(self, version: Version, start: int, stop: int, headers: dict[str, str]) -> None:
        comparison = Comparison(version.content.pieces(self.soak.base, start, stop))
        path = f"/api/v1/model/by_id/{version.identifier}?version={version.version}"
        wanted = (206,) if headers else (200,)
        answer = self.ask("download", stop - start, "GET", path, None, headers, wanted, version, comparison)
        if answer.status in wanted:
            if not comparison.whole:
                raise Wrong(f"other bytes of {version.identifier}: {comparison.size} from {start} to {stop}")
            with self.soak.lock:
                self.soak.seen.bytes_out += comparison.size

    def read_record(self) -> None:
        version = self.soak.some(self.draw)
        query = self.draw.choice(("", f"?version={version.version}"))
        path = f"/api/v1/model/{version.identifier}/data{query}"
        record = self.ask("record", 0, "GET", path, None, {}, (200,), version)
        if record.status == 200:
            said = json.loads(record.body)
            if said["name"] != version.name or (query and said["size"] != version.content.size):
                raise Wrong(f"another record: {said}")

    def read_catalogue(self) -> None:
        after = self.draw.choice((0, max(self.soak.some(self.draw).identifier - 50, 0)))
        self.ask("", 0, "GET", f"/api/v1/model_catalog?limit=100&after={after}", None, {}, (200, 404))

    def read_names(self) -> None:
        name = f"model-{self.draw.randrange(NAMES)}"
        path = self.draw.choice((f"/api/v1/model_catalog?name={name}", f"/api/v1/aliases?name={name}"))
        self.ask("", 0, "GET", path, None, {}, (200, 404))

    # changes

    def set_alias(self) -> None:
        version = self.soak.some(self.draw)
        alias = self.draw.choice(("champion", "candidate"))
        body = json.dumps({"identifier": version.identifier}).encode()
        path = f"/api/v1/aliases/{alias}?name={version.name}"
        self.ask("", 0, "PUT", path, [body], JSON, (200,), version)

    def delete(self) -> None:
        version = self.soak.some(self.draw)
        with self.soak.lock:
            if len(self.soak.versions) < 50 or self.soak.versions.pop(version.identifier, None) is None:
                return
        self.ask("", 0, "DELETE", f"/api/v1/model/{version.identifier}?version={version.version}")
        with self.soak.lock:
            self.soak.deleted.append(version)

    def restore(self) -> None:
        with self.soak.lock:
            if not self.soak.deleted:
                return
            version = self.soak.deleted.pop()
        path = f"/api/v1/model/{version.identifier}/restore"
        if self.ask("", 0, "POST", path, [b""], {}, (200, 404)).status == 200:  # 404: collected
            with self.soak.lock:
                self.soak.versions[version.identifier] = version

    # what goes wrong

    def be_refused(self) -> None:
        version = self.soak.some(self.draw)
        path = f"/api/v1/model/{version.identifier}"
        upload = f"/api/v1/model?name={version.name}&version=1.{self.soak.number()}.0"
        zeros = {"Content-Digest": f"sha-256=:{'A' * 43}=:"}
        other = f"/api/v1/model?name={version.name}&version={version.version}"
        far = {"Range": f"bytes={version.content.size}-"}
        status, method, path, body, headers = self.draw.choice(
            (
                (401, "GET", f"{path}/data", None, {"Authorization": "Bearer unknown"}),
                (404, "GET", "/api/v1/model/2000000000/data", None, {}),
                (422, "POST", f"/api/v1/model?name={version.name}", [b"bytes"], OCTET_STREAM),
                (400, "POST", upload, [b"bytes"], OCTET_STREAM | zeros),
                (409, "POST", other, [b"other bytes"], OCTET_STREAM),
                (400, "POST", "/api/v1/model", [b"no form"], {"Content-Type": "multipart/form-data; boundary=b"}),
                (415, "POST", "/api/v1/model", [b"text"], {"Content-Type": "text/plain"}),
                (416, "GET", f"/api/v1/model/by_id/{version.identifier}?version={version.version}", None, far),
                (412, "POST", "/api/v1/files", [b""], {}),
            )
        )
        answer = self.ask("", 0, method, path, body, headers, (status,), version)
        if answer.status == 200 and status == 409:  # it was deleted meanwhile, so this is a new one
            with self.soak.lock:
                self.soak.seen.actions["published what was deleted"] += 1

    def leave_upload(self) -> None:
        name, version, content = self.new()
        with self.soak.server.connect() as connection:
            path = f"/api/v1/model?name={name}&version={version}"
            head = request("POST", path, connection.headers | OCTET_STREAM, content.size)
            connection.socket.sendall(head)
            for piece in content.pieces(self.soak.base, 0, self.draw.randrange(content.size)):
                connection.socket.sendall(piece)

    def leave_download(self) -> None:
        version = self.soak.some(self.draw)
        with self.soak.server.connect() as connection:
            connection.send("GET", f"/api/v1/model/by_id/{version.identifier}?version={version.version}")
            with contextlib.suppress(ConnectionError):
                connection.read(limit=1)

    def leave_tus(self) -> None:
        *_, content = self.new()
        location = self.begin_tus(content)
        pieces = content.pieces(self.soak.base, 0, self.draw.randrange(content.size))
        self.ask("", 0, "PATCH", location, pieces, TUS | OFFSET | {"Upload-Offset": "0"}, (204,))
        if self.draw.random() < 0.5:
            self.ask("", 0, "DELETE", location, None, TUS, (204,))

    def ask(
        self,
        kind: str,
        size: int,
        method: str,
        path: str,
        body: Sequence[bytes | memoryview | Part] | None = None,
        headers: dict[str, str] | None = None,
        wanted: Sequence[int] = (200,),
        of: Version | None = None,
        comparison: Comparison | None = None,
    ) -> Answer:
        """The answer, its time counted under `kind` if `size` is small. Wrong unless its status is wanted.

        404 and the like are right for a version `of` that was deleted meanwhile, 503 is counted.
        """
        begun = time.perf_counter()
        self.connection.send(method, path, body, headers)
        answer = self.connection.read(see=comparison.see if comparison else None)
        took = time.perf_counter() - begun
        soak = self.soak
        with soak.lock:
            minute = soak.minute()
            soak.seen.requests[minute] += 1
            if kind and size <= SMALL:
                soak.seen.took[minute, kind].append(took)
            gone = of is not None and of.identifier not in soak.versions
            if answer.status in (503, 429):
                soak.seen.busy[answer.status] += 1
        if b"\r\nconnection: close" in answer.head.lower():
            self.reconnect()
        if answer.status not in (*wanted, 503) and not gone:
            raise Wrong(f"{method} {path}: {answer.status} {answer.body[:300]!r}")
        return answer


@dataclass(frozen=True)
class Sample:
    minute: float
    memory: float
    descriptors: int
    threads: int


def look(server: Server, soak: Soak, samples: list[Sample], until: threading.Event) -> None:
    while not until.wait(1):
        samples.append(
            Sample((time.monotonic() - soak.begun) / 60, server.memory(), server.descriptors(), server.threads())
        )


def quiet(server: Server) -> int:
    """Descriptors that are open when nothing happens: the least within QUIET_S."""
    counts = []
    for _ in range(QUIET_S):
        time.sleep(1)
        counts.append(server.descriptors())
    return min(counts)


def soak_for(minutes: float, workers: int, folder: Path, settings: dict[str, Any]) -> bool:
    """Whether all was right."""
    beats = folder / "beats"
    program: list[str | Path] = ["-P", PROJECT / "benchmarks" / "common" / "heartbeat.py", beats]
    with ours(folder, receipts=True, settings=settings, program=program) as server:
        soak = Soak(server, memoryview(os.urandom(BASE)))
        with soak.working(workers):
            time.sleep(WARM_UP_S)
        before = quiet(server)
        warm, soak.seen = soak.seen, Seen()
        soak.seen.wrong = warm.wrong
        samples: list[Sample] = []
        done = threading.Event()
        looking = threading.Thread(target=look, args=(server, soak, samples, done))
        soak.begun = time.monotonic()
        looking.start()
        with soak.working(workers):
            time.sleep(minutes * 60)
        ended = time.monotonic()
        done.set()
        looking.join()
        after = quiet(server)
        values = {"kind": "model", "tokens": folder / "tokens.json"}
        values |= {"database": folder / "records.sqlite", "store": folder / "store"} | settings
        chain = run(values, "audit", "verify").strip()
    events = [json.loads(line) for line in beats.read_text().splitlines()]
    within = [event for event in events if soak.begun <= event["time"] <= ended + 1]
    tell(soak, samples, within, minutes)
    return judge(soak, samples, within, before, after, chain)


def tell(soak: Soak, samples: Sequence[Sample], events: Sequence[dict[str, Any]], minutes: float) -> None:
    kinds = ("record", "download", "publish")
    heads = ["minute", "requests/s", *kinds, "memory MiB", "descriptors", "threads", "longest stall ms (at work)"]
    table = columns("By minute; ms are of small requests: median (p99)", *heads)
    for minute in range(-int(-minutes // 1)):
        seconds = min(60.0, minutes * 60 - minute * 60)
        mine = [sample for sample in samples if int(sample.minute) == minute]
        if not mine:
            continue
        stalls = [
            (event["stall_ms"], event["work_ms"]) for event in events
            if "stall_ms" in event and int((event["time"] - soak.begun) // 60) == minute
        ]  # fmt: skip
        stall, work = max(stalls, default=(0, 0))
        table.add_row(
            str(minute + 1),
            f"{soak.seen.requests[minute] / seconds:,.0f}",
            *(middle_and_late(soak.seen.took[minute, kind]) for kind in kinds),
            f"{statistics.median(sample.memory for sample in mine):.0f}",
            f"{statistics.median(sample.descriptors for sample in mine):.0f}",
            f"{max(sample.threads for sample in mine)}",
            f"{stall:.0f} ({work:.0f})",
        )
    show(table)


def judge(
    soak: Soak, samples: Sequence[Sample], events: Sequence[dict[str, Any]], before: int, after: int, chain: str
) -> bool:
    """Print what is to be said about each; whether nothing is wrong."""
    seen = soak.seen
    said = ", ".join(f"{count:,} {action.replace('_', ' ')}" for action, count in sorted(seen.actions.items()))
    print(f"done: {said}; {seen.bytes_in / MIB:,.0f} MiB in, {seen.bytes_out / MIB:,.0f} MiB out, each byte compared")
    last = samples[-1].minute
    settled = min(2.0, last / 3)  # from the third minute on
    late = [sample for sample in samples if sample.minute >= settled]
    slope = statistics.linear_regression([each.minute for each in late], [each.memory for each in late]).slope
    quarter = len(late) // 4 or 1
    ends = [statistics.median(each.memory for each in part) for part in (late[:quarter], late[-quarter:])]
    grew = ends[1] - ends[0]
    print(f"memory: {ends[0]:.0f} MiB from minute {settled + 1:.0f} on, {ends[1]:.0f} MiB at the end, "
          f"{slope:+.2f} MiB a minute: {'flat' if grew < max(8, ends[0] / 20) else 'it grows'}")  # fmt: skip
    leaks = after > before + MARGIN
    print(f"descriptors when quiet: {before} before, {after} after: {'LEAK' if leaks else 'no leak'}")
    for kind in ("record", "download", "publish"):
        minutes = sorted({minute for minute, of in seen.took if of == kind and seen.took[minute, of]})
        slow = [p99(seen.took[minute, kind]) * 1000 for minute in minutes if len(seen.took[minute, kind]) > 20]
        if slow:
            steady = max(slow[len(slow) // 2 :]) <= 1.5 * max(slow[: max(len(slow) // 2, 1)])
            print(f"p99 of {kind}: {min(slow):.0f} to {max(slow):.0f} ms by minute: {'steady' if steady else 'rises'}")
    stalls = [(event["stall_ms"], event["work_ms"]) for event in events if "stall_ms" in event]
    long = [stall for stall in stalls if stall[0] > STALL_MS]
    worked = [work for _, work in long if work > STALL_MS]
    print(f"event loop: longest stall {max(stalls, default=(0, 0))[0]:.0f} ms, {len(long)} of {len(stalls)} seconds "
          f"with one over {STALL_MS} ms, {len(worked)} of them by its own work")  # fmt: skip
    if long:
        found = Counter(event["at"][-1] for event in events if event.get("at"))
        for place, count in found.most_common(8):
            print(f"   {count} x {place}")
    if seen.busy:
        print("answers that ask to try again: " + ", ".join(f"{n} x {status}" for status, n in seen.busy.items()))
    print(f"audit: {chain}")
    for text, count in Counter(seen.wrong).most_common(20):
        print(f"WRONG, {count} x: {text}")
    print(f"{len(seen.wrong)} wrong answers or bytes")
    return not leaks and not seen.wrong


def middle_and_late(took: Sequence[float]) -> str:
    return f"{statistics.median(took) * 1000:.1f} ({p99(took) * 1000:.0f})" if len(took) > 1 else ""


def p99(took: Sequence[float]) -> float:
    return statistics.quantiles(took, n=100)[98]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="how long, after a warm-up; default 10")
    parser.add_argument("--workers", type=int, default=8, help="clients at once; default 8")
    parser.add_argument("--postgresql", action="store_true", help="PostgreSQL instead of SQLite")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hxmlops-soak-"))
    try:
        with contextlib.ExitStack() as stack:
            settings = dict(SETTINGS)
            if options.postgresql:
                settings |= stack.enter_context(postgresql()).database()
            return 0 if soak_for(options.minutes, options.workers, folder, settings) else 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
