"""The audit: lines that are never changed, each chained to the one before by SHA-256.

A line's digest is that of its canonical JSON (RFC 8785) without the digest itself, but with that of the line before.
So whoever holds one line's digest, as receipts do, can tell whether anything before it was altered or left out.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import structlog
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hxmlops_evidence.digests import digest_of
from hxmlops_sharing.database import Database
from hxmlops_sharing.tables import audit
from hxmlops_sharing.times import now

BEFORE_THE_FIRST = "sha256:" + "0" * 64
MERGE_S = 1.0
"""Seconds within which equal notes become one line."""
MAX_NOTES = 10_000
"""Different notes kept while the database is away; more are counted in one line."""

log = structlog.get_logger("hxmlops_sharing")


@dataclass(frozen=True)
class Line:
    """What happened: by whom, to what. `detail` is JSON."""

    action: str
    client: str
    kind: str = ""
    identifier: int | None = None
    name: str | None = None
    version: str | None = None
    sha256: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    request_id: str = ""
    refers_to: int | None = None


@dataclass(frozen=True)
class Entry:
    """A line's place in the chain."""

    id: int
    digest: str


@dataclass(frozen=True)
class Verdict:
    """What `verify` found. `problem` names the first line that is not as it was written."""

    entries: int
    head: Entry
    problem: str | None


async def head(connection: AsyncConnection) -> Entry:
    """The last line's place; number 0 where there is none."""
    last = select(audit.c.id, audit.c.digest).order_by(audit.c.id.desc()).limit(1)
    row = (await connection.execute(last)).one_or_none()
    return Entry(row.id, row.digest) if row else Entry(0, BEFORE_THE_FIRST)


async def append(connection: AsyncConnection, *lines: Line) -> list[Entry]:
    """Add lines at the end, within a write transaction."""
    last = await head(connection)
    rows, entries = [], []
    for line in lines:
        row = {"id": last.id + 1, "at": now(), **asdict(line), "previous": last.digest}
        last = Entry(row["id"], digest_of(row))
        rows.append(row | {"digest": last.digest})
        entries.append(last)
    if rows:
        await connection.execute(insert(audit), rows)
    return entries


async def entries(
    connection: AsyncConnection, *, after: int = 0, limit: int | None = None
) -> AsyncGenerator[dict[str, Any]]:
    """Lines as they are stored, oldest first, from behind number `after`."""
    rows = await connection.stream(select(audit).where(audit.c.id > after).order_by(audit.c.id).limit(limit))
    async for row in rows.mappings():
        yield dict(row)


async def pair(connection: AsyncConnection, number: int) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """A line and the one that ends it; None for what is not there."""
    mine = select(audit).where((audit.c.id == number) | (audit.c.refers_to == number)).order_by(audit.c.id)
    rows = {row["refers_to"]: dict(row) for row in (await connection.execute(mine)).mappings()}
    return rows.get(None), rows.get(number)


async def verify(connection: AsyncConnection) -> Verdict:
    """Compute the whole chain again."""
    chain = Chain()
    async with contextlib.aclosing(entries(connection)) as lines:
        async for row in lines:
            chain.add(row)
            if chain.problem:
                break
    return chain.verdict()


class Chain:
    """Computes a chain again, line by line."""

    def __init__(self) -> None:
        self.last = Entry(0, BEFORE_THE_FIRST)
        self.problem: str | None = None

    def add(self, row: Mapping[str, Any]) -> None:
        """The next line; `problem` is set for the first that does not fit."""
        if self.problem is not None:
            return
        if row["id"] != self.last.id + 1:
            self.problem = f"line {self.last.id + 1} is missing"
        elif row["previous"] != self.last.digest:
            self.problem = f"line {row['id']} does not follow line {self.last.id} as it is now"
        elif digest_of({name: value for name, value in row.items() if name != "digest"}) != row["digest"]:
            self.problem = f"line {row['id']} was altered"
        else:
            self.last = Entry(row["id"], row["digest"])

    def verdict(self) -> Verdict:
        return Verdict(self.last.id, self.last, self.problem)


class AuditLog:
    """Adds lines from many requests at once: those that wait are written by one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[tuple[Line, asyncio.Future[Entry]]] = []
        self._notes: dict[tuple[object, ...], tuple[Line, int]] = {}
        self._left_out = 0
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    async def write(self, line: Line) -> Entry:
        """Add a line; it is on disk when this returns. DatabaseUnavailable when it is not."""
        place: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        self._waiting.append((line, place))
        self._start()
        self._wake.set()
        return await place

    def note(self, line: Line) -> None:
        """Add a line soon; equal ones within MERGE_S become one, whose detail has their count."""
        key = (line.action, line.client, line.kind, line.identifier, line.name, line.version, repr(line.detail))
        first, count = self._notes.get(key, (line, 0))
        if count == 0 and len(self._notes) >= MAX_NOTES:
            self._left_out += 1
        else:
            self._notes[key] = (first, count + 1)
        self._start()

    async def close(self) -> None:
        """Write what is left."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while not self._closing or self._waiting:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), MERGE_S)
            self._wake.clear()
            await self._flush()
        await self._flush()

    async def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        notes, self._notes = self._notes, {}
        left_out, self._left_out = self._left_out, 0
        lines = [_counted(line, count) for line, count in notes.values()]
        if left_out:
            lines.append(Line("left-out", "", detail={"count": left_out}))
        lines += [line for line, _ in waiting]
        if not lines:
            return
        try:
            async with self._database.write() as connection:
                places = await append(connection, *lines)
                await connection.commit()
        except Exception as error:
            log.error("audit_not_written", reason=type(error).__name__, lines=len(lines))
            self._notes = notes | self._notes
            self._left_out += left_out
            for _, place in waiting:
                if not place.done():
                    place.set_exception(error)
            return
        for (_, place), entry in zip(waiting, places[len(lines) - len(waiting) :], strict=True):
            if not place.done():
                place.set_result(entry)


def _counted(line: Line, count: int) -> Line:
    return Line(**{**asdict(line), "detail": {**line.detail, "count": count}})
