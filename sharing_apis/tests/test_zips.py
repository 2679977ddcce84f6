"""Zip files made of pieces: any zip reader reads them, whatever the sizes."""

import io
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hxmlops_sharing.store import Segment
from hxmlops_sharing.zips import Entry, Piece, zip_of

GIB = 1 << 30


def entry_of(name: str, location: str, size: int, crc32: int) -> Entry:
    return Entry(name, (Segment(location, size),), size, crc32)


def location_of(piece: Piece) -> str:
    [segment] = piece.segments
    return segment.location


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=3))
def test_any_contents_come_out_as_they_went_in(contents: list[bytes]) -> None:
    there = {str(number): content for number, content in enumerate(contents)}
    entries = [entry_of(f"entry{key}", key, len(data), zlib.crc32(data)) for key, data in there.items()]
    pieces = zip_of(entries)
    data = b"".join(there[location_of(piece)] if piece.segments else piece.data for piece in pieces)
    assert len(data) == sum(piece.size for piece in pieces)
    with zipfile.ZipFile(io.BytesIO(data)) as read:
        assert read.testzip() is None
        assert [read.read(f"entry{key}") for key in there] == contents
        assert {info.compress_type for info in read.infolist()} == {zipfile.ZIP_STORED}


@pytest.mark.parametrize("sizes", [(5 * GIB, 10), (10, 5 * GIB), (3 * GIB, 3 * GIB), (2**32 - 1, 1), (2**32 - 2, 1)])
def test_sizes_beyond_32_bits(tmp_path: Path, sizes: tuple[int, int]) -> None:
    entries = [
        entry_of(name, name, size, zlib.crc32(bytes(size)) if size < GIB else 0)  # large ones are not read to their end
        for name, size in zip(("dataset", "dataModel"), sizes, strict=True)
    ]
    path = tmp_path / "sparse.zip"
    with path.open("wb") as file:  # the entries' bytes are holes
        for piece in zip_of(entries):
            if piece.segments:
                file.seek(piece.size, io.SEEK_CUR)
            else:
                file.write(piece.data)
    with zipfile.ZipFile(path) as read:
        assert [(info.filename, info.file_size) for info in read.infolist()] == [
            (entry.name, entry.size) for entry in entries
        ]
        for entry in entries:
            with read.open(entry.name) as opened:  # finds the local header and compares it with the directory
                assert opened.read(10) == b"\0" * min(10, entry.size)
