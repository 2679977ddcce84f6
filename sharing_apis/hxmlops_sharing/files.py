"""Files that arrive in pieces, over days if need be: rows of `uploads`, their bytes segments of the final store.

A segment is recorded when the store has it for good, so what was recorded survives everything. Whoever records next
must go on from there: of two that send at once, on one server or on several, one wins, and the other's bytes go.
"""

import asyncio
import contextlib
import hashlib
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from sqlalchemy import Row, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import ClientDisconnect

from hxmlops_sharing.access import Caller
from hxmlops_sharing.audit import Line, append
from hxmlops_sharing.garbage import add_garbage
from hxmlops_sharing.incoming import Content, Hashes, Incoming, Received, Receiver
from hxmlops_sharing.problems import Problem
from hxmlops_sharing.records import DATASET
from hxmlops_sharing.registry import Registry
from hxmlops_sharing.store import Segment
from hxmlops_sharing.tables import objects, uploads
from hxmlops_sharing.times import now, shifted

SEGMENT = 64 << 20
"""Bytes of a segment at most, but for those that a checksum holds together."""
SEGMENT_S = 60
"""Seconds after which a segment is recorded however small, so that a crash costs no more on a slow line."""
MAX_SEGMENTS = 20_000
MAX_FILES = 1_000
"""Of one client, not registered yet."""
MAX_STATES = 1_000
"""Hash states in memory, a few hundred bytes each."""
SILENT_S = 2
"""Seconds without a byte after which a request gives way to the next one for the same file."""


@dataclass(frozen=True)
class File:
    """A file as recorded. `sha256` is known when all is received and hashed."""

    id: str
    client: str
    size: int
    received: int
    segments: tuple[Segment, ...]
    upload_metadata: str
    sha256: str | None
    crc32: int | None
    expires_at: str

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        values = {name: row._mapping[name] for name in cls.__dataclass_fields__}
        return cls(**values | {"segments": _segments(row.segments)})


@dataclass
class Checksum:
    """What a client says the bytes of one request hash to."""

    hashing: "hashlib._Hash"
    expected: bytes


class Files:
    """The files that clients of one server have under way."""

    def __init__(self, registry: Registry, receiver: Receiver, *, expiry_hours: float) -> None:
        self._registry = registry
        self._database = registry.database
        self._receiver = receiver
        self._expiry_hours = expiry_hours
        self._with_crc32 = registry.kind is DATASET
        self._turns: dict[str, _Turn] = {}
        self._states: OrderedDict[str, Hashes] = OrderedDict()
        self._reading: dict[str, asyncio.Task[Hashes]] = {}

    async def close(self) -> None:
        """Stop reading back what was received."""
        for task in self._reading.values():
            task.cancel()
        await asyncio.gather(*self._reading.values(), return_exceptions=True)

    async def create(self, size: int, upload_metadata: str, caller: Caller, request_id: str) -> File:
        """Begin a file of so many bytes. Problem 413 or 507 when that is too many, 429 for too many files."""
        if size > self._receiver.limit:
            raise Problem(413, "too-large", f"more than {self._receiver.limit} bytes")
        empty = Hashes(with_crc32=self._with_crc32).content(())
        file = File(
            secrets.token_hex(16), caller.client, size, 0, (), upload_metadata,
            None if size else empty.sha256, None if size else empty.crc32, self._expiry(),
        )  # fmt: skip
        async with self._database.write() as connection:
            count = select(func.count()).where(uploads.c.client == caller.client)
            if (await connection.scalar(count) or 0) >= MAX_FILES:
                raise Problem(
                    429, "too-many-files", f"{MAX_FILES} files are under way: register or delete some", _RETRY
                )
            await self._registry.check_quota(connection, size, caller)
            await connection.execute(insert(uploads), {**file.__dict__, "segments": [], "created_at": now()})
            await append(connection, self._line("tus-create", file, file.size, request_id))
            await connection.commit()
        return file

    async def find(self, identifier: str, caller: Caller) -> File:
        """The caller's file. Problem 404 when there is none, 410 when it has expired."""
        async with self._database.read() as connection:
            return await _find(connection, identifier, caller)

    async def look(self, identifier: str, caller: Caller) -> File:
        """The file with all that has arrived, as far as nobody is sending now."""
        file = await self.find(identifier, caller)
        if await self._settled(identifier):
            return file
        return await self.find(identifier, caller)

    async def delete(self, identifier: str, caller: Caller, request_id: str) -> None:
        """Forget a file; its bytes become garbage."""
        async with self._database.write() as connection:
            file = await _find(connection, identifier, caller)
            await _forget(connection, [file])
            await append(connection, self._line("tus-delete", file, file.received, request_id))
            await connection.commit()
        self._states.pop(identifier, None)

    async def receive(
        self,
        identifier: str,
        caller: Caller,
        offset: int,
        body: AsyncIterator[bytes],
        *,
        length: int | None = None,
        checksum: Checksum | None = None,
    ) -> File:
        """Add bytes (`length`, where known) from `offset` on; what arrives of a body that breaks off is recorded too.

        With a checksum all of them count, or none: 460. Problem 409 when `offset` is not where the file ends now,
        413 for more bytes than the file has, 423 while another request is adding to it.
        """
        await self.find(identifier, caller)  # what is not the caller's is not waited for
        async with self._turn(identifier) as turn:
            file = await self.find(identifier, caller)
            if offset != file.received:
                raise _elsewhere(file.received)
            if length is not None and length > file.size - offset:
                raise _too_long(file)
            arriving = _Arriving(self, file, checksum)
            try:
                while (data := await turn.next(body)) is not None:
                    if data:
                        await arriving.write(data)
                await arriving.end(whole=turn.broken is None)
            finally:
                await arriving.discard()
            if turn.broken is not None:
                raise turn.broken
        return await self.hashed(arriving.file) if arriving.file.received == file.size else arriving.file

    async def hashed(self, file: File) -> File:
        """A file that is all here, with its hashes, which are recorded."""
        if file.sha256 is not None and (file.crc32 is not None or not self._with_crc32):
            return file
        content = (await self._state(file)).content(file.segments)
        async with self._database.write() as connection:
            hashes = {"sha256": content.sha256, "crc32": content.crc32}
            await connection.execute(update(uploads).where(uploads.c.id == file.id).values(hashes))
            await connection.commit()
        return replace(file, sha256=content.sha256, crc32=content.crc32)

    async def take(self, caller: Caller, named: Mapping[str, str], declared: Mapping[str, Any]) -> dict[str, Received]:
        """Files to register: for each member, the id or URL that names one and the digest it should have.

        Problem 404, 409, 410, 422; 400 for another digest. A file that is no more, because a version has its bytes,
        is found when its digest is given: to repeat the registration, which then answers the same record.
        """
        identifiers = {member: _identifier(member, reference) for member, reference in named.items()}
        if len(set(identifiers.values())) < len(identifiers):
            raise Problem(422, "invalid", f"{' and '.join(named)} name the same file")
        taken: dict[str, Received] = {}
        for member, identifier in identifiers.items():
            sha256 = declared[member]
            if not (sha256 is None or (isinstance(sha256, str) and _SHA256.fullmatch(sha256))):
                raise Problem(422, "invalid", f"{member}: its digest should be sha256: and 64 hexadecimal digits")
            try:
                taken[member] = await self._take(identifier, caller)
            except Problem as problem:
                again = await self._registered(identifier, sha256, caller) if sha256 else None
                if again is None or problem.status_code != 404:
                    raise
                taken[member] = again
            found = taken[member].content.sha256
            if sha256 not in (None, found):
                raise Problem(400, "digest-mismatch", f"{member} has the digest {found}, not the declared one")
        return taken

    async def _take(self, identifier: str, caller: Caller) -> "WholeFile":
        file = await self.look(identifier, caller)
        if file.received != file.size:
            raise Problem(
                409, "incomplete", f"{file.received} of {file.size} bytes of the file are here: send the rest"
            )
        return WholeFile(await self.hashed(file))

    async def _registered(self, identifier: str, sha256: str, caller: Caller) -> "RegisteredFile | None":
        """The file of a version that the caller itself has uploaded: of others nobody learns that they are here."""
        table = self._registry.kind.table
        digests = [column for column in table.c if column.name.endswith("sha256")]
        mine = (table.c.created_by == caller.client, or_(*(column == sha256 for column in digests)))
        row = None
        async with self._database.read() as connection:
            if (await connection.execute(select(table.c.id).where(*mine).limit(1))).first():
                row = (await connection.execute(select(objects).where(objects.c.sha256 == sha256))).one_or_none()
        return RegisteredFile(identifier, Content(sha256, row.size, None, _segments(row.segments))) if row else None

    async def record(self, file: File, piece: Incoming, hashes: Hashes | None) -> File:
        """Add a finished piece to a file as it was seen last; `hashes` are those of all its bytes with it.

        Problem 409 when others have added to it meanwhile.
        """
        (segment,) = piece.content.segments
        async with self._database.write() as connection:
            row = (await connection.execute(select(uploads).where(uploads.c.id == file.id))).one_or_none()
            if row is None:
                raise _missing(file.id)
            if row.received != file.received:
                raise _elsewhere(row.received)
            if len(row.segments) >= MAX_SEGMENTS:
                raise Problem(413, "too-many-pieces", f"more than {MAX_SEGMENTS} pieces: begin again with larger ones")
            grown = replace(
                File.of(row),
                received=row.received + segment.size,
                segments=(*file.segments, segment),
                expires_at=self._expiry(),
            )
            if hashes is not None and grown.received == grown.size:
                content = hashes.content(grown.segments)
                grown = replace(grown, sha256=content.sha256, crc32=content.crc32)
            columns = grown.__dict__ | {"segments": _json(grown.segments)}
            await connection.execute(update(uploads).where(uploads.c.id == file.id).values(columns))
            try:
                await connection.commit()
            finally:  # of a commit that failed nobody knows what became: collecting finds what nothing refers to
                piece.keep()
        if hashes is not None:
            self._remember(file.id, hashes)
        return grown

    async def hashes_of(self, file: File) -> Hashes | None:
        """Hashes of what is recorded, to go on with; None while there is so much to read that nobody should wait."""
        state = self._states.get(file.id)
        if file.received - (state.size if state else 0) > SEGMENT:
            self._read_on(file)
            return None
        return await self._state(file)

    def incoming(self, hashes: Hashes) -> Incoming:
        return self._receiver.incoming(hashes=hashes)

    async def _state(self, file: File) -> Hashes:
        state = self._states.get(file.id)
        while state is None or state.size < file.received:
            state = await asyncio.shield(self._read_on(file))
        self._remember(file.id, state)
        return state.copy()

    def _read_on(self, file: File) -> asyncio.Task[Hashes]:
        async def read() -> Hashes:
            try:
                return await self._read(file)
            finally:  # and not in a callback: who asks before that runs would find the ended task for ever
                del self._reading[file.id]

        task = self._reading.get(file.id)
        if task is None:
            task = self._reading[file.id] = asyncio.create_task(read())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _read(self, file: File) -> Hashes:
        """Hash what is recorded and has not gone through this process, or too long ago."""
        state = self._states.get(file.id) or Hashes(with_crc32=self._with_crc32)
        state, place = state.copy(), 0
        for segment in file.segments:
            start = max(state.size - place, 0)
            if start < segment.size:
                async for block in self._receiver.store.read(segment.location, start, segment.size):
                    await asyncio.get_running_loop().run_in_executor(None, state.update, block)
                self._remember(file.id, state)
            place += segment.size
        return state

    def _remember(self, identifier: str, state: Hashes) -> None:
        known = self._states.get(identifier)
        if known is None or known.size < state.size:
            self._states[identifier] = state.copy()
        self._states.move_to_end(identifier)
        if len(self._states) > MAX_STATES:
            self._states.popitem(last=False)

    async def _settled(self, identifier: str) -> bool:
        """Wait for a request that is ending, or whose client is silent: it ends. Whether there was none such."""
        turn = self._turns.get(identifier)
        if turn is None or not turn.gives_way():
            return True
        await turn.ended.wait()
        return False

    @contextlib.asynccontextmanager
    async def _turn(self, identifier: str) -> AsyncIterator["_Turn"]:
        await self._settled(identifier)
        if identifier in self._turns:
            raise Problem(423, "locked", "another request is sending this file: wait for its end", _RETRY)
        turn = self._turns[identifier] = _Turn()
        try:
            yield turn
        finally:
            del self._turns[identifier]
            turn.ended.set()

    def _expiry(self) -> str:
        return shifted(hours=self._expiry_hours)

    def _line(self, action: str, file: File, size: int, request_id: str) -> Line:
        detail = {"file": file.id, "bytes": size}
        return Line(action, file.client, self._registry.kind.word, detail=detail, request_id=request_id)


class WholeFile:
    """Fulfils `incoming.Received`: a file of a client's, to be registered."""

    def __init__(self, file: File) -> None:
        self._file = file
        self.content = Content(file.sha256 or "", file.size, file.crc32, file.segments)

    async def taken(self, connection: AsyncConnection, *, is_new: bool) -> None:
        """The file is no more; its bytes are garbage if the digest's object has others. Problem 404 if it was gone."""
        gone = delete(uploads).where(uploads.c.id == self._file.id).returning(uploads.c.id)
        if (await connection.execute(gone)).one_or_none() is None and is_new:
            raise _missing(self._file.id)
        stored = select(objects.c.segments).where(objects.c.sha256 == self.content.sha256)
        if _segments(await connection.scalar(stored) or ()) != self.content.segments:
            await add_garbage(connection, [segment.location for segment in self.content.segments])

    def keep(self) -> None:
        pass

    async def discard(self) -> None:
        """What is not registered stays a file."""


class RegisteredFile:
    """Fulfils `incoming.Received` for a file that is no more: good for nothing but to repeat its registration.

    Whoever knows a digest must not get at its bytes by it, so no new version comes of this.
    """

    def __init__(self, identifier: str, content: Content) -> None:
        self._identifier = identifier
        self.content = content

    async def taken(self, connection: AsyncConnection, *, is_new: bool) -> None:  # noqa: ARG002
        if is_new:
            raise _missing(self._identifier)

    def keep(self) -> None:
        pass

    async def discard(self) -> None:
        pass


class _Arriving:
    """The bytes of one request on their way into a file. A checksum makes them one segment."""

    def __init__(self, files: Files, file: File, checksum: Checksum | None) -> None:
        self.file = file
        self._files = files
        self._checksum = checksum
        self._place = file.received
        self._hashes: Hashes | None = None
        self._piece: Incoming | None = None
        self._size = 0
        self._old_at = 0.0

    async def write(self, data: bytes) -> None:
        self._place += len(data)
        if self._place > self.file.size:
            raise _too_long(self.file)
        if self._checksum is None and (self._size + len(data) > SEGMENT or time.monotonic() > self._old_at):
            await self._record()
        piece = self._piece or await self._begin()
        self._size += len(data)
        await piece.write(data)

    async def end(self, *, whole: bool) -> None:
        """No more bytes will come. Problem 460 when they are not those of the checksum."""
        if self._checksum is None or whole:
            await self._record()

    async def discard(self) -> None:
        """Remove what is not recorded."""
        if self._piece is not None:
            await self._piece.discard()

    async def _begin(self) -> Incoming:
        if self._hashes is None:
            self._hashes = await self._files.hashes_of(self.file)
        hashes = self._hashes or Hashes()
        if self._checksum is not None:
            hashes = _Checked(hashes, self._checksum)
        self._piece = self._files.incoming(hashes)
        self._size = 0
        self._old_at = time.monotonic() + SEGMENT_S
        return self._piece

    async def _record(self) -> None:
        if self._piece is not None:
            await self._piece.finish()
        if self._checksum is not None and self._checksum.hashing.digest() != self._checksum.expected:
            raise Problem(460, "checksum-mismatch", "the bytes are not those of Upload-Checksum: send them again")
        if self._piece is not None:
            self.file = await self._files.record(self.file, self._piece, self._hashes)
            self._piece = None


class _Checked(Hashes):
    """Hashes of a file that go on, and a checksum of what is added."""

    def __init__(self, hashes: Hashes, checksum: Checksum) -> None:
        super().__init__()
        self._inner = hashes
        self._checksum = checksum

    def update(self, data: bytes) -> None:
        self._inner.update(data)
        self._checksum.hashing.update(data)


class _Turn:
    """One request's turn to add to a file."""

    def __init__(self) -> None:
        self.broken: BaseException | None = None
        """Why there are no more bytes, where that is not the body's end."""
        self.ended = asyncio.Event()
        self._ending = False
        self._waiting: asyncio.Timeout | None = None
        self._waits_since = 0.0

    async def next(self, body: AsyncIterator[bytes]) -> bytes | None:
        """The next bytes; None when there are no more."""
        self._waits_since = time.monotonic()
        try:
            async with asyncio.timeout(None) as self._waiting:
                data = await anext(body, None)
        except TimeoutError:
            self.broken = Problem(409, "taken-over", "another request goes on with this file")
            data = None
        except (ClientDisconnect, asyncio.CancelledError) as error:
            self.broken = error
            data = None
        finally:
            self._waiting = None
        self._ending = data is None
        return data

    def gives_way(self) -> bool:
        """Whether it ends now; a client that has been silent is not waited for any more."""
        if self._waiting is not None and time.monotonic() - self._waits_since > SILENT_S:
            self._waiting.reschedule(asyncio.get_running_loop().time())
            self._ending = True
        return self._ending


_RETRY = {"Retry-After": "2"}
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_IDENTIFIER = re.compile("[0-9a-f]{32}")
_REFERENCE = re.compile(r"(?:.*/)?([0-9a-f]{32})/?")


async def _find(connection: AsyncConnection, identifier: str, caller: Caller) -> File:
    if not _IDENTIFIER.fullmatch(identifier):
        raise _missing(identifier)
    mine = select(uploads).where(uploads.c.id == identifier, uploads.c.client == caller.client)
    row = (await connection.execute(mine)).one_or_none()
    if row is None:
        raise _missing(identifier)
    if row.expires_at <= now():
        raise Problem(410, "expired", "the file's time is over: begin again")
    return File.of(row)


async def _forget(connection: AsyncConnection, files: Sequence[File]) -> None:
    for file in files:
        await add_garbage(connection, [segment.location for segment in file.segments])
        await connection.execute(delete(uploads).where(uploads.c.id == file.id))


def _segments(stored: Sequence[Sequence[Any]]) -> tuple[Segment, ...]:
    return tuple(Segment(location, size) for location, size in stored)


def _identifier(member: str, reference: str) -> str:
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise Problem(422, "invalid", f"{member}: should be the id of a file, or the URL that Location told")
    return match[1]


def _json(segments: Sequence[Segment]) -> list[list[Any]]:
    return [[segment.location, segment.size] for segment in segments]


def _missing(identifier: str) -> Problem:
    return Problem(404, "not-found", f"there is no file {identifier}")


def _elsewhere(received: int) -> Problem:
    return Problem(409, "offset", f"{received} bytes of the file are here: go on from there")


def _too_long(file: File) -> Problem:
    return Problem(413, "too-large", f"the file has {file.size} bytes, of which {file.received} are here")
