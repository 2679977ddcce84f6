"""A store in a folder: `objects/ab/abcdef…` and, while they arrive, files in `incoming/`, on one file system."""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import secrets
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO

import anyio.to_thread

from hxmlops_sharing.store import BLOCK, Content, StoreError


class FolderStore:
    """Fulfils `store.Store`. Several servers may share one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects = folder / "objects"
        self.incoming = folder / "incoming"

    async def open(self) -> None:
        try:
            await anyio.to_thread.run_sync(self._prepare)
        except OSError as error:
            raise StoreError(
                f"store {self.folder}: {error.strerror}: name a folder that this user may write to"
            ) from None

    def _prepare(self) -> None:
        for folder in (self.folder, self.objects, self.incoming):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self.incoming.iterdir():
            with path.open("rb") as file, contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # its writer lives while this is refused
                path.unlink(missing_ok=True)

    def receive(self, *, with_crc32: bool = False) -> "IncomingFile":
        return IncomingFile(self, with_crc32=with_crc32)

    def path(self, sha256: str) -> Path:
        name = sha256.removeprefix("sha256:")
        return self.objects / name[:2] / name

    async def size(self, sha256: str) -> int | None:
        def look() -> int | None:
            try:
                return self.path(sha256).stat().st_size
            except FileNotFoundError:
                return None

        return await anyio.to_thread.run_sync(look)

    async def read(self, sha256: str, start: int, stop: int) -> AsyncIterator[bytes]:
        file = await anyio.to_thread.run_sync(lambda: self.path(sha256).open("rb", buffering=0))
        with file:
            while start < stop:
                block = await anyio.to_thread.run_sync(os.pread, file.fileno(), min(BLOCK, stop - start), start)
                if not block:
                    raise EOFError(f"object {sha256} ends before byte {stop}")
                yield block
                start += len(block)

    async def remove(self, sha256: str) -> None:
        await anyio.to_thread.run_sync(lambda: self.path(sha256).unlink(missing_ok=True))


class IncomingFile:
    """Fulfils `store.Incoming`. One block is hashed and written in a thread while the next arrives."""

    content: Content

    def __init__(self, store: FolderStore, *, with_crc32: bool) -> None:
        self._store = store
        self._path = store.incoming / secrets.token_hex(16)
        self._file: IO[bytes] | None = None
        self._sha256 = hashlib.sha256()
        self._crc32 = 0 if with_crc32 else None
        self._size = 0
        self._waiting: list[bytes] = []
        self._waiting_size = 0
        self._work: asyncio.Future[None] | None = None

    async def write(self, data: bytes) -> None:
        self._waiting.append(data)
        self._waiting_size += len(data)
        if self._waiting_size >= BLOCK:
            await self._write_waiting()

    async def finish(self) -> Content:
        await self._write_waiting()
        await self._in_thread(self._sync)
        await self._done()
        self.content = Content(f"sha256:{self._sha256.hexdigest()}", self._size, self._crc32)
        return self.content

    async def keep(self) -> bool:
        return await anyio.to_thread.run_sync(self._rename)

    async def discard(self) -> None:
        if self._work is not None:
            await asyncio.wait([self._work])
            self._work.exception()  # seen: whoever discards has an error of its own already
        await anyio.to_thread.run_sync(self._forget)

    async def _write_waiting(self) -> None:
        block, self._waiting, self._waiting_size = b"".join(self._waiting), [], 0
        await self._in_thread(lambda: self._append(block))

    async def _in_thread(self, work: Callable[[], None]) -> None:
        """Begin `work` after the last piece of work is done, whose error is raised here."""
        await self._done()
        self._work = asyncio.get_running_loop().run_in_executor(None, work)

    async def _done(self) -> None:
        if self._work is not None:
            await asyncio.wait([self._work])
            self._work.result()

    def _append(self, block: bytes) -> None:
        if self._file is None:
            self._file = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
            fcntl.flock(self._file, fcntl.LOCK_EX)
        self._file.write(block)
        self._sha256.update(block)
        self._size += len(block)
        if self._crc32 is not None:
            self._crc32 = zlib.crc32(block, self._crc32)

    def _forget(self) -> None:
        if self._file is not None:
            self._path.unlink(missing_ok=True)  # gone already when it was kept
            with contextlib.suppress(OSError):  # a full disk may refuse what is still buffered
                self._file.close()

    def _sync(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def _rename(self) -> bool:
        """The newer of two equal files stays: it heals an object that was damaged on disk."""
        target = self._store.path(self.content.sha256)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        is_new = not target.exists()
        self._path.replace(target)
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return is_new
