"""Whether a server lives, and whether what it stands on answers. Without a token; nothing is told but up or away."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from hxmlops_sharing.database import Database
from hxmlops_sharing.openapi import problems_of
from hxmlops_sharing.problems import Problem
from hxmlops_sharing.records import Health
from hxmlops_sharing.store import Store

TIMEOUT_S = 2.0
KEEP_S = 1.0
"""Seconds that an answer is good for: however many ask, the database and the store are asked once."""

log = structlog.get_logger("hxmlops_sharing")


class Readiness:
    """Asks the database and the store whether they are there."""

    def __init__(self, database: Database, store: Store) -> None:
        self._checks: dict[str, Callable[[], Awaitable[None]]] = {"database": database.check, "store": store.check}
        self._asked_at = float("-inf")
        self._asking: asyncio.Task[tuple[str, ...]] | None = None
        self._away: tuple[str, ...] = ()

    async def away(self) -> tuple[str, ...]:
        """Those of `database` and `store` that do not answer within TIMEOUT_S."""
        if time.monotonic() - self._asked_at >= KEEP_S and (self._asking is None or self._asking.done()):
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        if self._asking is not None and not self._asking.done():
            return await asyncio.shield(self._asking)
        return self._away

    async def _ask(self) -> tuple[str, ...]:
        answers = await asyncio.gather(*(self._answers(name) for name in self._checks))
        away = tuple(name for name, answer in zip(self._checks, answers, strict=True) if not answer)
        if away != self._away:
            log.warning("readiness", away=away)
        self._away, self._asked_at = away, time.monotonic()
        return away

    async def _answers(self, name: str) -> bool:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._checks[name]()
        except Exception as error:
            log.warning("away", part=name, reason=type(error).__name__)
            return False
        return True

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._asking


class Ready(BaseModel):
    status: Literal["READY"]


router = APIRouter()


async def get_readiness(request: Request) -> Readiness:
    readiness: Readiness = request.app.state.service.readiness
    return readiness


@router.get("/health")
@router.head("/health", include_in_schema=False)
async def health() -> Health:
    """Whether the server lives, as v1 has it. Answered without a token."""
    return Health(status="UP")


@router.get("/live")
@router.head("/live", include_in_schema=False)
async def live() -> Health:
    """Whether the server lives. Answered without a token."""
    return Health(status="UP")


@router.get("/ready", responses=problems_of(503))
@router.head("/ready", include_in_schema=False)
async def ready(readiness: Annotated[Readiness, Depends(get_readiness)]) -> Ready:
    """Whether database and store answer. Answered without a token."""
    away = await readiness.away()
    if away:
        raise Problem(503, "not-ready", f"no answer from: {', '.join(away)}", {"Retry-After": "2"})
    return Ready(status="READY")
