"""Files that appear whole or not at all; secrets are 0600 in folders 0700."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


def write_private(path: Path, data: bytes) -> None:
    """Write a secret: 0600, missing folders above it 0700, atomically. OSError when that cannot be done."""
    make_private_folder(path.parent)
    write_atomic(path, data, 0o600)


def create_private(path: Path, data: bytes) -> bool:
    """Write a secret unless the file is there already; never overwrites. True when it was written."""
    if path.exists():
        return False
    make_private_folder(path.parent)
    with _temporary(path, 0o600) as (file, temporary):
        file.write(data)
        _to_disk(file)
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
    return True


def write_atomic(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file atomically with these permissions, making missing folders above it."""
    with writing(path, mode) as file:
        file.write(data)


@contextlib.contextmanager
def writing(path: Path, mode: int = 0o600) -> Iterator[IO[bytes]]:
    """A file to fill that becomes `path` when the block ends, and vanishes when the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(path, mode) as (file, temporary):
        yield file
        _to_disk(file)
        temporary.replace(path)


def make_private_folder(folder: Path) -> None:
    """Make a folder and those missing above it, 0700 each; what exists stays as it is."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)


@contextlib.contextmanager
def _temporary(path: Path, mode: int) -> Iterator[tuple[IO[bytes], Path]]:
    """An empty file beside `path`, gone afterwards unless it was renamed."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            os.fchmod(descriptor, mode)
            yield file, temporary
    finally:
        temporary.unlink(missing_ok=True)


def _to_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
