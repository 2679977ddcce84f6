"""Garbage collection: versions whose grace period is over, expired uploads, bytes that nothing refers to.

What is decided is decided by write transactions: a row that referred to bytes goes, and their location becomes garbage,
together. A later step removes from the store what has been garbage for SETTLE_S, so that downloads under way can end,
and only after having looked through all that refers to bytes once more. So it does no harm when it is killed anywhere,
nor when several servers do it at once. Memory does not grow with what there is: locations are compared in a temporary
file.
"""

import asyncio
import itertools
import random
import sqlite3
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import structlog
from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hxmlops_sharing import audit
from hxmlops_sharing.audit import Line
from hxmlops_sharing.database import Database
from hxmlops_sharing.garbage import add_garbage
from hxmlops_sharing.store import Store
from hxmlops_sharing.tables import datasets, garbage, models, objects, uploads
from hxmlops_sharing.times import now, shifted

if TYPE_CHECKING:
    from hxmlops_sharing.service import Service

SETTLE_S = 3600.0
"""Seconds between becoming garbage and being removed."""
ORPHAN_S = 3600.0
"""Age of bytes in the store, in seconds, from which nobody can be about to refer to them."""
FIRST_S = 60.0
"""Seconds after a server's start, at most, until it collects for the first time."""
BATCH = 500
AT_ONCE = 8
COLLECTOR = "collector"

log = structlog.get_logger("hxmlops_sharing")


@dataclass
class Collected:
    """What a collection did or, dry, would do."""

    versions: int = 0
    uploads: int = 0
    objects: int = 0
    orphans: int = 0
    removed: int = 0
    bytes: int = 0
    """Of the objects, uploads and orphans that became garbage."""

    def table(self) -> str:
        meanings = {
            "versions": "versions whose grace period was over",
            "uploads": "uploads that had expired",
            "objects": "objects that nothing referred to",
            "orphans": "files of the store that nothing referred to",
            "removed": "files removed from the store",
            "bytes": "bytes that became garbage",
        }
        width = max(map(len, meanings.values()))
        return "\n".join(
            f"{meanings[field.name].ljust(width)}  {getattr(self, field.name):>15,}" for field in fields(self)
        )


async def collect_regularly(service: "Service") -> None:
    """Collect as often as the settings say, until cancelled. Errors are logged; the next time may be better."""
    every_s = service.settings.collect_every_minutes * 60
    await asyncio.sleep(min(FIRST_S, every_s) * random.uniform(0.5, 1))  # noqa: S311 (several servers take turns)
    while True:
        try:
            collected = await collect(service.database, service.store, grace_days=service.settings.grace_days)
            service.metrics.collected.inc(collected.bytes)
            log.info("collected", **vars(collected))
        except Exception as error:
            log.error("collection_failed", reason=type(error).__name__, exc_info=True)
        await asyncio.sleep(every_s * random.uniform(0.9, 1.1))  # noqa: S311


async def collect(
    database: Database,
    store: Store,
    *,
    grace_days: float,
    settle_s: float = SETTLE_S,
    orphan_s: float = ORPHAN_S,
    dry_run: bool = False,
) -> Collected:
    """Collect once. DatabaseUnavailable, OSError, StoreUnavailable: the next time does the rest."""
    collector = _Collector(database, store, dry_run=dry_run)
    over = shifted(days=-grace_days)
    for table in (models, datasets):
        await collector.purge(table, over)
    await collector.expire()
    await collector.forget_objects(over)
    await collector.sweep(settle_s, orphan_s)
    return collector.collected


class _Collector:
    def __init__(self, database: Database, store: Store, *, dry_run: bool) -> None:
        self.database = database
        self.store = store
        self.dry_run = dry_run
        self.collected = Collected()

    async def purge(self, table: Any, over: str) -> None:
        """Remove versions that were deleted before `over`."""
        if self.dry_run:
            async with self.database.read() as connection:
                count = await connection.scalar(
                    select(func.count()).select_from(table).where(table.c.deleted_at < over)
                )
            self.collected.versions += count or 0
            return
        after = 0
        while True:
            async with self.database.read() as connection:
                gone = select(table.c.id).where(table.c.deleted_at < over, table.c.id > after)
                found = list((await connection.execute(gone.order_by(table.c.id).limit(BATCH))).scalars())
            if not found:
                return
            async with self.database.write() as connection:
                still = and_(table.c.id.in_(found), table.c.deleted_at < over)  # one may have been restored
                purged = list((await connection.execute(delete(table).where(still).returning(table.c.id))).scalars())
                if purged:
                    detail = {"versions": len(purged), "first": min(purged), "last": max(purged)}
                    await audit.append(
                        connection, Line("collect", COLLECTOR, kind=table.name.removesuffix("s"), detail=detail)
                    )
                await connection.commit()
            self.collected.versions += len(purged)
            after = found[-1]

    async def expire(self) -> None:
        """Forget resumable uploads whose time is over."""
        is_over = uploads.c.expires_at < now()
        after = ""
        while True:
            async with self.database.read() as connection:
                ids = select(uploads.c.id).where(is_over, uploads.c.id > after).order_by(uploads.c.id).limit(BATCH)
                found = list((await connection.execute(ids)).scalars())
            if not found:
                return
            await self._to_garbage(uploads, "uploads", and_(uploads.c.id.in_(found), is_over))
            after = found[-1]

    async def forget_objects(self, over: str) -> None:
        """Forget the objects that no version refers to. Dry, as if those deleted before `over` were gone."""
        unreferenced = _unreferenced(over if self.dry_run else "")
        after = ""
        while True:
            async with self.database.read() as connection:
                digests = select(objects.c.sha256).where(unreferenced, objects.c.sha256 > after)
                found = list((await connection.execute(digests.order_by(objects.c.sha256).limit(BATCH))).scalars())
            if not found:
                return
            await self._to_garbage(objects, "objects", and_(objects.c.sha256.in_(found), unreferenced))
            after = found[-1]

    async def sweep(self, settle_s: float, orphan_s: float) -> None:
        """Remove settled garbage from the store, and find what is in the store and nowhere else."""
        with _Locations() as locations:
            async for batch in _batches(self.store.list(older_than_s=orphan_s)):
                await locations.add_listed([(segment.location, segment.size) for segment in batch])
            settled = select(garbage.c.location).where(garbage.c.added_at <= shifted(seconds=-settle_s))
            async with self.database.read() as connection:
                for query, is_settled in ((select(garbage.c.location), False), (settled, True)):
                    rows = await connection.stream_scalars(query)
                    async for some in rows.partitions(BATCH):
                        await locations.add_garbage(some, settled=is_settled)
            if not self.dry_run:
                async with self.database.write():
                    pass  # whoever was about to refer to what was listed has done so, or will never
            async with self.database.read(snapshot=True) as connection:
                for table in (objects, uploads):
                    rows = await connection.stream_scalars(select(table.c.segments))
                    async for some in rows.partitions(BATCH):
                        await locations.refer(location for segments in some for location, _ in segments)
            await self._rescue(locations)
            await self._remove(locations)
            await self._take_orphans(locations)

    async def _to_garbage(self, table: Any, name: str, condition: ColumnElement[bool]) -> None:
        """Remove rows and have their segments become garbage."""
        async with self._transaction() as connection:
            if self.dry_run:
                rows = list((await connection.execute(select(table.c.segments).where(condition))).scalars())
            else:
                removed = delete(table).where(condition).returning(table.c.segments)
                rows = list((await connection.execute(removed)).scalars())
                await add_garbage(connection, [location for segments in rows for location, _ in segments])
            await self._done(connection, **{name: len(rows)}, bytes=sum(size for some in rows for _, size in some))

    async def _rescue(self, locations: "_Locations") -> None:
        """What is referred to is no garbage, whatever made it so."""
        for batch in itertools.batched(locations.rescued(), BATCH):
            log.warning("garbage_is_in_use", locations=len(batch))
            await self._forget(batch)

    async def _remove(self, locations: "_Locations") -> None:
        for batch in itertools.batched(locations.removable(), BATCH):
            if not self.dry_run:
                for few in itertools.batched(batch, AT_ONCE):
                    await asyncio.gather(*map(self.store.remove, few))
            await self._forget(batch, removed=len(batch))

    async def _take_orphans(self, locations: "_Locations") -> None:
        """The next collection but SETTLE_S removes them, if they are still nobody's then."""
        for batch in itertools.batched(locations.orphans(), BATCH):
            async with self._transaction() as connection:
                if not self.dry_run:
                    await add_garbage(connection, [location for location, _ in batch])
                await self._done(connection, orphans=len(batch), bytes=sum(size for _, size in batch))

    async def _forget(self, locations: Sequence[str], **counts: int) -> None:
        """What was garbage is none any more."""
        async with self._transaction() as connection:
            if not self.dry_run:
                await connection.execute(delete(garbage).where(garbage.c.location.in_(locations)))
            await self._done(connection, **counts)

    def _transaction(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """To write in; of a dry run, to read."""
        return self.database.read() if self.dry_run else self.database.write()

    async def _done(self, connection: AsyncConnection, **counts: int) -> None:
        """End a transaction, with its line in the audit: of a collector that is killed it says what it did."""
        if not self.dry_run:
            detail = {name: count for name, count in counts.items() if count}
            if detail:
                await audit.append(connection, Line("collect", COLLECTOR, detail=detail))
            await connection.commit()
        for name, count in counts.items():
            setattr(self.collected, name, getattr(self.collected, name) + count)


class _Locations:
    """Locations in a temporary file: which the store listed, which are garbage, which are referred to."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)  # "": a file of its own
        self._database.execute(
            "CREATE TABLE locations (location TEXT PRIMARY KEY, size INTEGER NOT NULL DEFAULT 0, "
            "garbage INTEGER NOT NULL DEFAULT 0, settled INTEGER NOT NULL DEFAULT 0, used INTEGER NOT NULL DEFAULT 0)"
        )

    def __enter__(self) -> "_Locations":
        return self

    def __exit__(self, *_error: object) -> None:
        self._database.close()

    async def add_listed(self, listed: Sequence[tuple[str, int]]) -> None:
        await self._many("INSERT OR IGNORE INTO locations (location, size) VALUES (?, ?)", listed)

    async def add_garbage(self, locations: Iterable[str], *, settled: bool) -> None:
        await self._many(
            "INSERT INTO locations (location, garbage, settled) VALUES (?, 1, ?) "
            "ON CONFLICT (location) DO UPDATE SET garbage = 1, settled = excluded.settled",
            [(location, settled) for location in locations],
        )

    async def refer(self, locations: Iterable[str]) -> None:
        await self._many("UPDATE locations SET used = 1 WHERE location = ?", [(each,) for each in locations])

    def rescued(self) -> Iterator[str]:
        return (row[0] for row in self._rows("SELECT location FROM locations WHERE garbage AND used"))

    def removable(self) -> Iterator[str]:
        return (row[0] for row in self._rows("SELECT location FROM locations WHERE settled AND NOT used"))

    def orphans(self) -> Iterator[tuple[str, int]]:
        return iter(self._rows("SELECT location, size FROM locations WHERE NOT garbage AND NOT used"))

    def _rows(self, query: str) -> sqlite3.Cursor:
        return self._database.execute(query)

    async def _many(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        def work() -> None:
            self._database.execute("BEGIN")
            self._database.executemany(statement, rows)
            self._database.execute("COMMIT")

        await anyio.to_thread.run_sync(work)


def _unreferenced(over: str) -> ColumnElement[bool]:
    """Condition on `objects`: no version has the digest, but for those that were deleted before `over` ("": none)."""
    columns = (models.c.sha256, datasets.c.dataset_sha256, datasets.c.data_model_sha256)
    return and_(
        *(
            ~exists().where(
                column == objects.c.sha256,
                or_(column.table.c.deleted_at.is_(None), column.table.c.deleted_at >= over),
            )
            for column in columns
        )
    )


async def _batches[T](items: AsyncIterator[T]) -> AsyncIterator[list[T]]:
    batch: list[T] = []
    async for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
