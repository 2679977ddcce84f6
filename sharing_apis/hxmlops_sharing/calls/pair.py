"""A dataset's two files out of the zip file that they travel in, read by its local headers alone.

Nothing but the one form that the API sends is taken: two stored entries of known names and digests, one after the
other, then the directory. So names lead nowhere, and nothing grows when it is unpacked.
"""

import hashlib
import os
import struct
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from hxmlops_sharing.calls.partial import appearing
from hxmlops_sharing.calls.wire import BLOCK

LOCAL, DIRECTORY = b"PK\3\4", b"PK\1\2"
ZIP64, IN_ZIP64 = 1, 0xFFFFFFFF
UTF8_NAMES = 1 << 11
MAX_DIRECTORY = 1024


class NoPair(Exception):
    """The file is not the pair that it should be."""


def unpack(file: IO[bytes], folder: Path, expected: Mapping[str, str]) -> None:
    """Write the entries of `expected`, name -> digest, to `folder`: all of them, or none. NoPair, OSError."""
    file.seek(0, os.SEEK_END)
    size = file.tell()
    file.seek(0)
    left = dict(expected)
    with ExitStack() as stack:
        while left:
            name, length = _entry(file)
            if name not in left or length > size - file.tell():
                raise NoPair
            if _copy(file, length, stack.enter_context(appearing(folder / name))) != left.pop(name):
                raise NoPair
        if size - file.tell() > MAX_DIRECTORY or file.read(4) != DIRECTORY:
            raise NoPair


def _entry(file: IO[bytes]) -> tuple[str, int]:
    """Name and length of the entry whose local header comes next (APPNOTE.TXT, 4.3.7)."""
    header = file.read(30)
    if len(header) < 30 or not header.startswith(LOCAL):
        raise NoPair
    flags, method, packed, length, name_length, extra_length = struct.unpack("<6xHH8xLLHH", header)
    name, extra = file.read(name_length), file.read(extra_length)
    if packed == length == IN_ZIP64 and len(extra) == 20 and extra.startswith(struct.pack("<HH", ZIP64, 16)):
        length, packed = struct.unpack("<4xQQ", extra)
    if flags & ~UTF8_NAMES or method or packed != length:
        raise NoPair
    return name.decode("ascii", "replace"), length


def _copy(source: IO[bytes], length: int, target: IO[bytes]) -> str:
    """Copy so many bytes; their digest."""
    digest = hashlib.sha256()
    while length:
        block = source.read(min(BLOCK, length))
        if not block:
            raise NoPair
        digest.update(block)
        target.write(block)
        length -= len(block)
    return f"sha256:{digest.hexdigest()}"
