"""A file that is arriving: beside its place, under a name of its own, hashed as it is written; kept to go on later."""

import contextlib
import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from hxmlops_sharing.calls.wire import BLOCK


class Partial:
    """`.<name>.<key>.part` beside `target`, for its writer alone. OSError where it cannot be made or written.

    What an earlier, interrupted download of the same `key` left there is its beginning. While another process writes
    it, this one takes a file without a past.
    """

    def __init__(self, target: Path, key: str) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self._file, self.path = _locked(target.with_name(f".{target.name}.{key}.part"))
        self._digest = hashlib.sha256()
        self.size = 0
        self.began_with = 0

    def take_up(self) -> None:
        """Hash what is there; writing goes on behind it."""
        self._file.seek(0)
        while block := self._file.read(BLOCK):
            self._digest.update(block)
            self.size += len(block)
        self.began_with = self.size

    def write(self, blocks: Sequence[bytes]) -> None:
        for block in blocks:
            self._file.write(block)
            self._digest.update(block)
            self.size += len(block)

    def restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._digest = hashlib.sha256()
        self.size = 0

    def make_room(self, size: int) -> None:
        """OSError at once when so many bytes more would fill the disk."""
        found = os.fstatvfs(self._file.fileno())
        if size > found.f_bavail * found.f_frsize:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    @property
    def sha256(self) -> str:
        return f"sha256:{self._digest.hexdigest()}"

    @property
    def file(self) -> IO[bytes]:
        return self._file

    def become(self, target: Path) -> None:
        """Take this name, on disk for good."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self.path.replace(target)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file; empty ones are removed. It stays otherwise, unless it became its target."""
        with contextlib.suppress(OSError):
            self._file.flush()
        if os.fstat(self._file.fileno()).st_size == 0 and _is(self._file, self.path):
            self.remove()
        with contextlib.suppress(OSError):
            self._file.close()


@contextlib.contextmanager
def appearing(target: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes its name when everything went well, and is gone otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
        path = Path(file.name)
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            path.replace(target)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _locked(path: Path) -> tuple[IO[bytes], Path]:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        file = os.fdopen(descriptor, "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            descriptor, name = tempfile.mkstemp(prefix=path.name.removesuffix("part"), dir=path.parent)
            return os.fdopen(descriptor, "r+b"), Path(name)
        except BaseException:
            file.close()
            raise
        if _is(file, path):
            return file, path
        file.close()  # who held the lock has finished it meanwhile: it bears its target's name now


def _is(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False
