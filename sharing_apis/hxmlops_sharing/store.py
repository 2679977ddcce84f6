"""Where the bytes are. This interface is what a store of another kind fulfils; the database says what is where.

A store keeps bytes at locations of its own choosing, which are never used twice. Nothing in it is visible to clients
until a row of the database refers to it.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

BLOCK = 1 << 20
"""Bytes handled at once: large enough for a disk's full speed, small enough to keep memory flat."""

LARGEST = 32 << 30
"""Bytes at one location: S3 takes 10,000 parts. More goes to another location."""


@dataclass(frozen=True)
class Segment:
    """A run of bytes of an object: where it is (`objects/ab/…`) and its size in bytes."""

    location: str
    size: int


class Writer(Protocol):
    """Bytes on their way to one location."""

    async def write(self, block: bytes) -> None:
        """Take the next bytes. OSError or StoreUnavailable when they cannot be stored."""

    async def finish(self) -> Segment:
        """No more bytes will come; they survive a power cut now. OSError or StoreUnavailable when they do not."""

    async def discard(self) -> None:
        """Remove what was written, finished or not. Never fails, may be called again; not after `keep`."""

    def keep(self) -> None:
        """The database refers to the location now: let go of it, so that `discard` does nothing."""


class Store(Protocol):
    async def open(self) -> None:
        """Make ready. StoreError when unusable."""

    async def close(self) -> None:
        """Let go of connections."""

    async def check(self) -> None:
        """OSError or StoreUnavailable when bytes could not be written or read now."""

    def writer(self) -> Writer:
        """Begin at a new location; nothing happens before the first `write` or `finish`."""

    async def size(self, location: str) -> int | None:
        """Size of what is there in bytes; None when there is nothing. StoreUnavailable when that cannot be known."""

    def read(self, location: str, start: int, stop: int) -> AsyncIterator[bytes]:
        """Bytes `start` to `stop` (exclusive), in blocks of about BLOCK. EOFError when there are fewer."""

    async def remove(self, location: str) -> None:
        """Remove what is there; nothing happens when there is nothing."""

    def list(self, *, older_than_s: float) -> AsyncIterator[Segment]:
        """What has not been written to for so long (seconds, by the store's clock) and nobody is writing now."""

    def path(self, location: str) -> Path | None:
        """The file on this machine that holds exactly these bytes; None where there is none."""

    async def url(self, location: str, *, filename: str, media_type: str) -> str | None:
        """A presigned URL that is good for some minutes; None where there is no such thing."""


class StoreError(Exception):
    """The store cannot be used: one line with what to do."""


class StoreUnavailable(Exception):
    """The store did not answer, or not in time: another try may succeed."""
