"""Files that appear whole or not at all, and errors of one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from hxmlops_evidence.errors import BadInput, Refused
from hxmlops_evidence.files import create_private, write_atomic, write_private, writing


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_secret_is_0600_in_folders_0700(tmp_path: Path) -> None:
    write_private(tmp_path / "a" / "b" / "secret", b"1")
    assert (mode(tmp_path / "a"), mode(tmp_path / "a/b"), mode(tmp_path / "a/b/secret")) == (0o700, 0o700, 0o600)


def test_a_secret_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    assert create_private(tmp_path / "secret", b"first")
    assert not create_private(tmp_path / "secret", b"second")
    assert (tmp_path / "secret").read_bytes() == b"first"


def test_writing_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", b"old")
    write_atomic(tmp_path / "file", b"new", 0o640)
    assert (tmp_path / "file").read_bytes() == b"new"
    assert mode(tmp_path / "file") == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    def write_half() -> None:
        with writing(tmp_path / "file") as file:
            file.write(b"half of the n")
            raise OSError("disk full")

    write_atomic(tmp_path / "file", b"old")
    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_refusal_names_its_criterion_and_its_reason() -> None:
    refusal = Refused("expiry", "evidence expired;\n ask for a new one")
    assert (refusal.criterion, refusal.reason) == ("expiry", "evidence expired; ask for a new one")
    assert str(refusal) == "expiry: evidence expired; ask for a new one"


def test_text_from_elsewhere_cannot_command_a_terminal() -> None:
    assert str(BadInput("file \x1b[2Jname\r\nx")) == "file \N{REPLACEMENT CHARACTER}[2Jname x"
