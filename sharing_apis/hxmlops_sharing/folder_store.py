"""A store in a folder: files `objects/ab/abcdef…` with random names. Several servers may share one folder."""

import asyncio
import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO

import anyio.to_thread

from hxmlops_sharing.store import BLOCK, Segment, StoreError

OBJECTS = "objects"
EARLY = 32 << 20
"""Bytes after which the disk begins to write, so that there is little left to wait for when the last ones are here."""


class FolderStore:
    """Fulfils `store.Store`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def open(self) -> None:
        try:
            await anyio.to_thread.run_sync(lambda: (self.folder / OBJECTS).mkdir(0o700, parents=True, exist_ok=True))
            await self.check()
        except OSError as error:
            raise StoreError(
                f"store {self.folder}: {error.strerror}: name a folder that this user may write to"
            ) from None

    async def close(self) -> None:
        pass

    async def check(self) -> None:
        def look() -> None:
            if not os.access(self.folder / OBJECTS, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")

        await anyio.to_thread.run_sync(look)

    def writer(self) -> "FileWriter":
        return FileWriter(self)

    def path(self, location: str) -> Path:
        return self.folder / location

    async def size(self, location: str) -> int | None:
        def look() -> int | None:
            try:
                return self.path(location).stat().st_size
            except FileNotFoundError:
                return None

        return await anyio.to_thread.run_sync(look)

    async def read(self, location: str, start: int, stop: int) -> AsyncIterator[bytes]:
        file = await anyio.to_thread.run_sync(lambda: self.path(location).open("rb", buffering=0))
        with file:
            while start < stop:
                block = await anyio.to_thread.run_sync(os.pread, file.fileno(), min(BLOCK, stop - start), start)
                if not block:
                    raise EOFError(f"{location} ends before byte {stop}")
                yield block
                start += len(block)

    async def remove(self, location: str) -> None:
        await anyio.to_thread.run_sync(lambda: self.path(location).unlink(missing_ok=True))

    async def list(self, *, older_than_s: float) -> AsyncIterator[Segment]:
        """Locks tell who writes; age counts for empty files only, as a new one is not locked from its first moment."""
        for folder in sorted((self.folder / OBJECTS).iterdir()):
            found = await anyio.to_thread.run_sync(lambda: list(self._idle(folder, older_than_s)))  # noqa: B023
            for segment in found:
                yield segment

    async def url(self, location: str, *, filename: str, media_type: str) -> None:  # noqa: ARG002
        return None

    def _idle(self, folder: Path, older_than_s: float) -> Iterator[Segment]:
        """Files that nobody holds the lock of."""
        for path in sorted(folder.iterdir()):
            with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                status = os.fstat(file.fileno())
                if status.st_size or time.time() - status.st_mtime >= older_than_s:
                    yield Segment(path.relative_to(self.folder).as_posix(), status.st_size)


class FileWriter:
    """Fulfils `store.Writer`. The file is locked from its first byte until it is kept or discarded."""

    def __init__(self, store: FolderStore) -> None:
        name = secrets.token_hex(16)
        self._location = f"{OBJECTS}/{name[:2]}/{name}"
        self._path = store.path(self._location)
        self._file: IO[bytes] | None = None
        self._work: asyncio.Future[None] | None = None
        self._size = self._begun = 0
        self._kept = False

    async def write(self, block: bytes) -> None:
        self._work = asyncio.get_running_loop().run_in_executor(None, self._append, block)
        await asyncio.shield(self._work)

    async def finish(self) -> Segment:
        self._work = asyncio.get_running_loop().run_in_executor(None, self._to_disk)
        await asyncio.shield(self._work)
        return Segment(self._location, self._size)

    def keep(self) -> None:
        self._kept = True
        self._close()

    async def discard(self) -> None:
        if self._work is not None:
            await asyncio.wait([self._work])
            self._work.exception()  # seen: whoever discards has an error of its own already
        if self._file is not None and not self._kept:
            await anyio.to_thread.run_sync(self._forget)

    def _append(self, block: bytes) -> None:
        file, rest = self._open(), memoryview(block)
        while rest:
            rest = rest[file.write(rest) :]
        self._size += len(block)
        if self._size - self._begun >= EARLY:  # Linux begins to write what it is told that nobody needs in memory
            os.posix_fadvise(file.fileno(), self._begun, self._size - self._begun, os.POSIX_FADV_DONTNEED)
            self._begun = self._size

    def _open(self) -> IO[bytes]:
        if self._file is None:
            with contextlib.suppress(FileExistsError):
                self._path.parent.mkdir(mode=0o700)
                _sync_folder(self._path.parent.parent)
            created = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._file = os.fdopen(created, "wb", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX)
        return self._file

    def _to_disk(self) -> None:
        os.fsync(self._open().fileno())
        _sync_folder(self._path.parent)

    def _forget(self) -> None:
        self._path.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
