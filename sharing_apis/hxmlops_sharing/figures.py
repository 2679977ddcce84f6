"""What metrics tell of the database: counted when Prometheus asks, at most once in KEEP_S."""

import asyncio
import time

from sqlalchemy import func, select

from hxmlops_sharing import audit
from hxmlops_sharing.database import Database
from hxmlops_sharing.health import Readiness
from hxmlops_sharing.metrics import Metrics
from hxmlops_sharing.tables import datasets, garbage, models

KEEP_S = 60.0
"""Counting a million versions takes a database some tenths of a second."""


class Figures:
    def __init__(self, database: Database, readiness: Readiness, metrics: Metrics) -> None:
        self._database = database
        self._readiness = readiness
        self._metrics = metrics
        self._counted_at = float("-inf")
        self._counting = asyncio.Lock()

    async def refresh(self) -> None:
        """Bring the metrics up to date. DatabaseUnavailable when the database is away, which they show by then."""
        away = await self._readiness.away()
        self._metrics.database_up.set("database" not in away)
        self._metrics.store_up.set("store" not in away)
        async with self._counting:
            if time.monotonic() - self._counted_at < KEEP_S:
                return
            async with self._database.read() as connection:
                self._metrics.audit_lines.set((await audit.head(connection)).id)
                waiting = await connection.execute(select(func.count()).select_from(garbage))
                self._metrics.garbage.set(waiting.scalar_one())
                for kind, table in (("model", models), ("dataset", datasets)):
                    live = select(func.count()).select_from(table).where(table.c.deleted_at.is_(None))
                    self._metrics.versions.labels(kind).set((await connection.execute(live)).scalar_one())
            self._counted_at = time.monotonic()
