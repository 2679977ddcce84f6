"""Bytes as they arrive: hashed once, written to the store meanwhile, visible to nobody."""

import asyncio
import hashlib
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from prometheus_client import Gauge
from sqlalchemy.ext.asyncio import AsyncConnection

from hxmlops_sharing.problems import Problem
from hxmlops_sharing.store import BLOCK, LARGEST, Segment, Store, Writer

PATIENCE_S = 60
"""Seconds to wait for another upload of the same digest before storing the bytes twice."""


@dataclass(frozen=True)
class Content:
    """What was received: digest (`sha256:…`), size in bytes, CRC-32 where one was asked for, and where it is."""

    sha256: str
    size: int
    crc32: int | None
    segments: tuple[Segment, ...]


class Received(Protocol):
    """A file that arrived whole, to be registered. Either kept or discarded in the end."""

    content: Content

    async def taken(self, connection: AsyncConnection, *, is_new: bool) -> None:
        """This transaction registers a version, or (not `is_new`) finds that it was registered before.

        The digest's object is on record: whatever else refers to the bytes lets go of them.
        """

    def keep(self) -> None:
        """A row of the database refers to the bytes now."""

    async def discard(self) -> None:
        """Forget the bytes unless they were kept. Never fails, may be called again."""


class Hashes:
    """SHA-256 and, if wanted, CRC-32 of bytes that come in pieces."""

    def __init__(self, *, with_crc32: bool = False) -> None:
        self._sha256 = hashlib.sha256()
        self._crc32 = 0 if with_crc32 else None
        self.size = 0

    def update(self, data: bytes) -> None:
        self._sha256.update(data)
        self.size += len(data)
        if self._crc32 is not None:
            self._crc32 = zlib.crc32(data, self._crc32)

    def copy(self) -> "Hashes":
        copied = Hashes()
        copied._sha256, copied._crc32, copied.size = self._sha256.copy(), self._crc32, self.size
        return copied

    def content(self, segments: Sequence[Segment]) -> Content:
        return Content(f"sha256:{self._sha256.hexdigest()}", self.size, self._crc32, tuple(segments))


type Known = Callable[[str], Awaitable[tuple[Segment, ...] | None]]
"""Where the bytes of a digest are, all of them; None when they are not here."""


class Receiver:
    """Begins files of one server. Uploads that declare the same digest come one by one, and are stored once."""

    def __init__(self, store: Store, known: Known, *, limit: int, open_uploads: Gauge) -> None:
        self.open_uploads = open_uploads
        self.store = store
        self.known = known
        self.limit = limit
        self.flights = Flights()

    def incoming(self, *, with_crc32: bool = False, hashes: Hashes | None = None) -> "Incoming":
        """A file of at most `limit` bytes; with `hashes`, the next part of one whose bytes so far those are of."""
        return Incoming(self, hashes or Hashes(with_crc32=with_crc32))


class Incoming:
    """Fulfils `Received`. One block is hashed and written while the next arrives.

    Problem 413 beyond the limit, 400 when the bytes are not those declared; OSError, StoreUnavailable from the store.
    """

    content: Content
    """Set by `finish`."""
    declared: str | None = None
    """The digest that the client says the bytes have; to be set before the first `write`."""
    waits = True
    """Whether it waits for another upload of the same digest; one of a request's files may, or two could wait for
    each other."""

    def __init__(self, receiver: Receiver, hashes: Hashes) -> None:
        self._receiver = receiver
        self._hashes = hashes
        self._waiting: list[bytes] = []
        self._waiting_size = self._size = 0
        self._writers: list[Writer] = []
        self._segments: list[Segment] = []
        self._in_segment = 0
        self._end_flight: Callable[[], None] | None = None
        self._here_already: tuple[Segment, ...] | None = None
        self._begun = False
        self._open = True
        receiver.open_uploads.inc()
        self._work: asyncio.Future[list[Any]] | None = None

    async def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self._size += len(data)
        if self._size > self._receiver.limit:
            raise Problem(413, "too-large", f"more than {self._receiver.limit} bytes")
        self._waiting.append(data)
        self._waiting_size += len(data)
        if self._waiting_size >= BLOCK:
            await self._begin_block()

    async def finish(self) -> Content:
        """No more bytes will come; they survive a power cut now."""
        if self._waiting or not self._begun:
            await self._begin_block()
        await self._done()
        self.content = self._hashes.content(self._here_already or ())
        if self.declared not in (None, self.content.sha256):
            raise Problem(400, "digest-mismatch", f"the bytes have the digest {self.content.sha256}, not the declared")
        if self._writers:
            self._segments.append(await self._writers[-1].finish())
            self.content = self._hashes.content(self._segments)
        return self.content

    async def taken(self, connection: AsyncConnection, *, is_new: bool) -> None:
        pass

    def keep(self) -> None:
        for writer in self._writers:
            writer.keep()

    async def discard(self) -> None:
        if self._work is not None:
            await asyncio.wait([self._work])
            self._work.exception()  # seen: whoever discards has an error of its own already
        for writer in self._writers:
            await writer.discard()
        if self._end_flight is not None:
            self._end_flight()
            self._end_flight = None
        if self._open:
            self._receiver.open_uploads.dec()
            self._open = False

    async def _begin(self) -> None:
        self._begun = True
        if self.declared is not None:
            if self.waits:
                self._end_flight = await self._receiver.flights.begin(self.declared)
            self._here_already = await self._receiver.known(self.declared)
        if self._here_already is None:
            self._writers.append(self._receiver.store.writer())

    async def _begin_block(self) -> None:
        if not self._begun:
            await self._begin()
        block, self._waiting, self._waiting_size = b"".join(self._waiting), [], 0
        await self._done()
        work: list[Awaitable[Any]] = [asyncio.get_running_loop().run_in_executor(None, self._hashes.update, block)]
        if self._writers:
            if self._in_segment + len(block) > LARGEST:
                self._segments.append(await self._writers[-1].finish())
                self._writers.append(self._receiver.store.writer())
                self._in_segment = 0
            self._in_segment += len(block)
            work.append(self._writers[-1].write(block))
        self._work = asyncio.gather(*work)

    async def _done(self) -> None:
        if self._work is not None:
            await asyncio.wait([self._work])
            self._work.result()


class Flights:
    """Uploads that declare the same digest: one at a time, as far as they are patient."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._wanted: Counter[str] = Counter()

    async def begin(self, digest: str) -> Callable[[], None] | None:
        """Wait until no other has this digest; gives what ends it. None after PATIENCE_S: go on without."""
        lock = self._locks.setdefault(digest, asyncio.Lock())
        self._wanted[digest] += 1
        try:
            await asyncio.wait_for(lock.acquire(), PATIENCE_S)
        except TimeoutError:
            self._leave(digest)
            return None
        except BaseException:
            self._leave(digest)
            raise

        def end() -> None:
            lock.release()
            self._leave(digest)

        return end

    def _leave(self, digest: str) -> None:
        self._wanted[digest] -= 1
        if not self._wanted[digest]:
            del self._wanted[digest], self._locks[digest]
