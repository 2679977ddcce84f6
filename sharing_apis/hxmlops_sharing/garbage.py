"""Locations of the store that nothing refers to any more: put on record here, removed by `collect.py`."""

import itertools
from collections.abc import Sequence

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hxmlops_sharing.tables import garbage
from hxmlops_sharing.times import now

BATCH = 500


async def add_garbage(connection: AsyncConnection, locations: Sequence[str]) -> None:
    """Have these removed some day, within a write transaction. What is on record already stays so."""
    for batch in itertools.batched(dict.fromkeys(locations), BATCH):
        known = select(garbage.c.location).where(garbage.c.location.in_(batch))
        there = set((await connection.execute(known)).scalars())
        added = [{"location": location, "added_at": now()} for location in batch if location not in there]
        if added:
            await connection.execute(insert(garbage), added)
