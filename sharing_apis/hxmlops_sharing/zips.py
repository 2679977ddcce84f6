"""A zip file as a list of pieces: stored entries (method 0) whose sizes and CRC-32 are known before they are read.

So the whole file's length is known, its bytes are always the same, and any range of it can be answered.
Fields are named in PKWARE's APPNOTE.TXT, sections 4.3.7 (local header), 4.3.12 (directory), 4.5.3 (zip64).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from hxmlops_sharing.store import Segment

FIRST_OF_1980 = (1 << 5) | 1  # the format's first date, month and day; with time 0
REGULAR_FILE = 0o100644 << 16
MADE_BY_UNIX = 3 << 8
LIMIT32 = 0xFFFFFFFF


@dataclass(frozen=True)
class Entry:
    name: str
    segments: tuple[Segment, ...]
    size: int
    crc32: int


@dataclass(frozen=True)
class Piece:
    """A run of bytes of an answer: either given, or an object of the store, its segments one after another."""

    size: int
    data: bytes = b""
    segments: tuple[Segment, ...] = ()


def zip_of(entries: Sequence[Entry]) -> list[Piece]:
    """The pieces of a zip file with these entries, of any size."""
    pieces: list[Piece] = []
    directory = b""
    offset = 0
    for entry in entries:
        local = _local_header(entry)
        directory += _directory_header(entry, offset)
        pieces += [Piece(len(local), local), Piece(entry.size, segments=entry.segments)]
        offset += len(local) + entry.size
    end = _end(len(entries), len(directory), offset)
    return [*pieces, Piece(len(directory) + len(end), directory + end)]


def _common(entry: Entry, *, needs: int, size: int, extra: bytes) -> bytes:
    """What both headers of an entry have in common."""
    return struct.pack(
        "<HHHHHLLLHH",
        needs, 0, 0, 0, FIRST_OF_1980, entry.crc32, size, size, len(entry.name.encode()), len(extra),
    )  # fmt: skip


def _local_header(entry: Entry) -> bytes:
    large = entry.size >= LIMIT32
    extra = struct.pack("<HHQQ", 1, 16, entry.size, entry.size) if large else b""
    size = LIMIT32 if large else entry.size
    common = _common(entry, needs=45 if large else 20, size=size, extra=extra)
    return b"PK\3\4" + common + entry.name.encode() + extra


def _directory_header(entry: Entry, offset: int) -> bytes:
    numbers: list[int] = [entry.size, entry.size] if entry.size >= LIMIT32 else []
    numbers += [offset] if offset >= LIMIT32 else []
    extra = struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""
    needs = 45 if extra else 20
    return (
        b"PK\1\2"
        + struct.pack("<H", MADE_BY_UNIX | needs)
        + _common(entry, needs=needs, size=min(entry.size, LIMIT32), extra=extra)
        + struct.pack("<HHHLL", 0, 0, 0, REGULAR_FILE, min(offset, LIMIT32))
        + entry.name.encode()
        + extra
    )


def _end(count: int, directory_size: int, offset: int) -> bytes:
    end = b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, count, count, directory_size, min(offset, LIMIT32), 0)
    if offset < LIMIT32:
        return end
    end64 = b"PK\6\6" + struct.pack("<QHHLLQQQQ", 44, MADE_BY_UNIX | 45, 45, 0, 0, count, count, directory_size, offset)
    locator = b"PK\6\7" + struct.pack("<LQL", 0, offset + directory_size, 1)
    return end64 + locator + end
