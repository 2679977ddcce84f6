"""Bytes of the store in order, at the speed of the machine and in little memory, whoever waits for them."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from hxmlops_sharing.store import BLOCK, Store

AHEAD = 4 * BLOCK
"""Bytes that a disk is asked to fetch while those before them are sent."""


@dataclass(frozen=True)
class Run:
    """A run of bytes of an answer: given, or `start` to `stop` (exclusive) at a location of the store."""

    data: bytes = b""
    location: str = ""
    start: int = 0
    stop: int = 0


type Block = bytes | memoryview


async def read_runs(store: Store, runs: Sequence[Run]) -> AsyncGenerator[Block]:
    """The runs' bytes in blocks. EOFError, OSError or StoreUnavailable when they are not to be had."""
    memory = Memory()
    for run in runs:
        if not run.location:
            yield run.data
            continue
        path = store.path(run.location)
        blocks: AsyncGenerator[Block] = (
            _of_file(path, run, memory) if path else _ahead(store.read(run.location, run.start, run.stop))
        )
        async with contextlib.aclosing(blocks):
            async for block in blocks:
                yield block


class Memory:
    """Blocks of memory, each given out again when nobody looks at it any more."""

    def __init__(self) -> None:
        self._blocks: list[bytearray] = []

    def take(self, size: int = BLOCK) -> bytearray:
        """A block for `size` bytes, or for as many of them as BLOCK."""
        size = min(size, BLOCK)
        for block in self._blocks:
            if len(block) < size:
                continue
            with contextlib.suppress(BufferError):  # a bytearray that somebody has a view of does not change its size
                block.append(block.pop())
                return block
        self._blocks.append(bytearray(size))
        return self._blocks[-1]


async def _of_file(path: Path, run: Run, memory: Memory) -> AsyncGenerator[Block]:
    """What the system has in memory is taken at once, the rest read by a thread, so that nobody waits for a disk."""
    descriptor = await anyio.to_thread.run_sync(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        start = run.start
        while start < run.stop:
            block = memoryview(memory.take(run.stop - start))[: run.stop - start]
            try:
                count = os.preadv(descriptor, [block], start, os.RWF_NOWAIT)
            except OSError:  # not in memory, or a file system that does not tell
                count = await anyio.to_thread.run_sync(_read, descriptor, block, start)
            if not count:
                raise EOFError(f"{run.location} ends before byte {run.stop}")
            yield block[:count]
            start += count
    finally:
        os.close(descriptor)


def _read(descriptor: int, block: memoryview, start: int) -> int:
    os.posix_fadvise(descriptor, start, AHEAD, os.POSIX_FADV_WILLNEED)
    return os.preadv(descriptor, [block], start)


async def _ahead(blocks: AsyncIterator[bytes]) -> AsyncGenerator[Block]:
    """The same blocks, of which the next is fetched while the caller is busy with one."""
    upcoming = asyncio.ensure_future(_next(blocks))
    try:
        while (block := await upcoming) is not None:
            upcoming = asyncio.ensure_future(_next(blocks))
            yield block
    finally:
        upcoming.cancel()
        await asyncio.wait([upcoming])
        if not upcoming.cancelled():
            upcoming.exception()  # seen: the caller has gone, or has it already
        if isinstance(blocks, AsyncGenerator):
            await blocks.aclose()


async def _next(blocks: AsyncIterator[bytes]) -> bytes | None:
    return await anext(blocks, None)
