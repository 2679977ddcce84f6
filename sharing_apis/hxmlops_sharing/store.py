"""Where the bytes are: objects named by their SHA-256. This interface is what a store of another kind fulfils."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

BLOCK = 1 << 20
"""Bytes handled at once: large enough for a disk's full speed, small enough to keep memory flat."""


@dataclass(frozen=True)
class Content:
    """What was received: digest (`sha256:…`), size in bytes, and CRC-32 where one was asked for."""

    sha256: str
    size: int
    crc32: int | None


class Incoming(Protocol):
    """Bytes on their way into a store, visible to nobody. Either kept or discarded in the end."""

    content: Content
    """Set by `finish`."""

    async def write(self, data: bytes) -> None:
        """Take the next bytes. OSError when they cannot be stored."""

    async def finish(self) -> Content:
        """No more bytes will come; they are on disk now. OSError when they are not."""

    async def keep(self) -> bool:
        """Make the object visible under its digest; False when the same was there already."""

    async def discard(self) -> None:
        """Forget the bytes unless they were kept. Never fails, may be called again."""


class Store(Protocol):
    async def open(self) -> None:
        """Make ready; forget what earlier, dead servers had not kept. StoreError when unusable."""

    def receive(self, *, with_crc32: bool = False) -> Incoming:
        """Begin an object."""

    async def size(self, sha256: str) -> int | None:
        """Size of an object in bytes; None when there is none."""

    def read(self, sha256: str, start: int, stop: int) -> AsyncIterator[bytes]:
        """Bytes `start` to `stop` (exclusive) of an object, in blocks."""

    async def remove(self, sha256: str) -> None:
        """Remove an object; nothing happens when there is none."""


class StoreError(Exception):
    """The store cannot be used: one line with what to do."""
