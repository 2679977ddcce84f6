"""The deterministic tar, and what is not unpacked."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hxmlops_evidence.artifact import pack, unpack
from hxmlops_evidence.digests import files_digest, sha256_file
from hxmlops_evidence.errors import BadInput, Refused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    for name, data in {"model.onnx": b"\x08\x07", "b/c": b"", "b.d": b"x" * 512, ".git/HEAD": b"ref"}.items():
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_bytes(data)
    return model


def tar_of(*members: tarfile.TarInfo, data: bytes = b"data", form: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar with these members in this order, as another program might write it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for member in members:
            if member.isreg():
                member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, **attributes: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for attribute, value in ({"mode": 0o644} | attributes).items():
        setattr(info, attribute, value)
    return info


def unpacked(data: bytes, where: Path) -> list[str]:
    (where / "hostile.tar").write_bytes(data)
    return unpack(where / "hostile.tar", where / "out")


def test_what_is_packed_is_unpacked(folder: Path, tmp_path: Path) -> None:
    digest = pack(folder, tmp_path / "model.tar")
    assert digest == sha256_file(tmp_path / "model.tar")
    assert unpack(tmp_path / "model.tar", tmp_path / "out") == [".git/HEAD", "b.d", "b/c", "model.onnx"]
    assert files_digest(tmp_path / "out") == files_digest(folder)


def test_equal_files_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    first = pack(folder, tmp_path / "first.tar")
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    (folder / "empty").mkdir()
    assert pack(folder, tmp_path / "second.tar") == first


def test_other_programs_can_read_it(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "model.tar")
    with tarfile.open(tmp_path / "model.tar") as archive:
        members = archive.getmembers()
    assert [info.name for info in members] == [".git/HEAD", "b.d", "b/c", "model.onnx"]
    assert {(info.mtime, info.uid, info.gid, info.mode, info.uname) for info in members} == {(0, 0, 0, 0o644, "")}


def test_a_tar_by_another_program_in_our_form_is_unpacked(tmp_path: Path) -> None:
    assert unpacked(tar_of(member("a"), member("b/c")), tmp_path) == ["a", "b/c"]


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1, max_size=20)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.binary(max_size=1025), min_size=1))
def test_any_folder_survives_the_journey(files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "in")
        try:
            for name, data in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
        except OSError:
            return  # this file system knows no such names together
        try:
            pack(folder, Path(scratch, "model.tar"))
        except BadInput:
            return
        unpack(Path(scratch, "model.tar"), Path(scratch, "out"))
        assert files_digest(Path(scratch, "out")) == files_digest(folder)


@settings(deadline=None, max_examples=40)
@given(
    st.text(max_size=60) | st.lists(st.sampled_from(["..", ".", "", "a", "~", "C:", "\\"]), max_size=5).map("/".join)
)
@example("../../etc/passwd")
@example("/etc/passwd")
@example("a/../../b")
@example("a\\..\\b")
@example("a\x00b")
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        where = Path(scratch, "inner")
        where.mkdir()
        try:
            data = tar_of(member(name))
        except (ValueError, UnicodeEncodeError):
            return
        try:
            names = unpacked(data, where)
        except Refused:
            assert {path.name for path in Path(scratch).rglob("*")} == {"inner", "hostile.tar"}
        else:
            assert [
                path.relative_to(where / "out").as_posix() for path in (where / "out").rglob("*") if path.is_file()
            ] == names


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_no_byte_of_the_frame_can_change(data: st.DataObject) -> None:
    """Whatever is unpacked packs to the same bytes again, so nothing can hide in headers, gaps or at the
    end.
    """
    tar = bytearray(tar_of(member("a"), member("b"), data=b"x" * 100))
    tar[data.draw(st.integers(0, len(tar) - 1))] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as scratch:
        where = Path(scratch)
        try:
            unpacked(bytes(tar), where)
        except Refused:
            assert not (where / "out").exists()
        else:
            pack(where / "out", where / "again.tar")
            assert (where / "again.tar").read_bytes() == tar


HOSTILE: dict[str, Callable[[], bytes]] = {
    "link": lambda: tar_of(member("a", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
    "hard link": lambda: tar_of(member("a"), member("b", type=tarfile.LNKTYPE, linkname="a")),
    "device": lambda: tar_of(member("a", type=tarfile.CHRTYPE, devmajor=1, devminor=3)),
    "pipe": lambda: tar_of(member("a", type=tarfile.FIFOTYPE)),
    "folder": lambda: tar_of(member("a", type=tarfile.DIRTYPE)),
    "twice": lambda: tar_of(member("a"), member("a")),
    "not sorted": lambda: tar_of(member("b"), member("a")),
    "file and folder": lambda: tar_of(member("a"), member("a/b")),
    "set-user-ID": lambda: tar_of(member("a", mode=0o4755)),
    "owner": lambda: tar_of(member("a", uid=1000, uname="root")),
    "time": lambda: tar_of(member("a", mtime=1)),
    "PAX header": lambda: tar_of(member("a", pax_headers={"path": "../b"}), form=tarfile.PAX_FORMAT),
    "GNU long name": lambda: tar_of(member("a/" * 60 + "b"), form=tarfile.GNU_FORMAT),
    "something after the end": lambda: tar_of(member("a")) + b"more",
    "another archive after the end": lambda: tar_of(member("a")) * 2,
    "zeros after the end": lambda: tar_of(member("a")) + bytes(10240),
    "cut off": lambda: tar_of(member("a"), data=b"x" * 5000)[:3000],
    "no end": lambda: tar_of(member("a"))[:1024],
    "something between": lambda: tar_of(member("a")).replace(b"data\x00", b"data\x01"),
    "nothing": lambda: b"",
    "no tar": lambda: b"PK\x03\x04" * 300,
    "packed with gzip": lambda: b"\x1f\x8b" + bytes(600),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_tar_that_we_would_not_have_made_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"^archive: "):
        unpacked(HOSTILE[kind](), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["hostile.tar"]


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of(*(member(f"{number:03}") for number in range(11))))
    with pytest.raises(Refused, match="more than 10 members"):
        unpack(tmp_path / "a.tar", tmp_path / "out", max_members=10)


def test_too_many_bytes_are_refused_before_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of(member("a"), data=b"x" * 1001))
    with pytest.raises(Refused, match="or 1000 bytes"):
        unpack(tmp_path / "a.tar", tmp_path / "out", max_bytes=1000)


def test_nothing_is_unpacked_over_what_is_there(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "model.tar")
    before = files_digest(folder)
    with pytest.raises(BadInput, match="is there already"):
        unpack(tmp_path / "model.tar", folder)
    assert files_digest(folder) == before


@pytest.mark.parametrize("name", ["a\\b", "a\nb"])
def test_a_name_that_would_be_refused_is_not_packed(name: str, folder: Path, tmp_path: Path) -> None:
    (folder / name).write_bytes(b"")
    with pytest.raises(BadInput, match="rename the file"):
        pack(folder, tmp_path / "model.tar")
    assert not (tmp_path / "model.tar").exists()


def test_links_and_empty_folders_are_not_packed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(BadInput, match="no files to pack"):
        pack(tmp_path / "model", tmp_path / "model.tar")
    (tmp_path / "model" / "link").symlink_to(tmp_path)
    with pytest.raises(BadInput, match="remove links"):
        pack(tmp_path / "model", tmp_path / "model.tar")


def test_a_name_longer_than_a_tar_can_hold_is_not_packed(folder: Path, tmp_path: Path) -> None:
    (folder / ("x" * 200)).write_bytes(b"")
    with pytest.raises(BadInput, match="name too long"):
        pack(folder, tmp_path / "model.tar")
