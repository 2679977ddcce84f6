"""Digests of bytes, files, JSON and folders."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hxmlops_evidence.digests import canonical, digest_of, files_digest, sha256_bytes, sha256_file
from hxmlops_evidence.errors import BadInput

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-(2.0**53) + 1, 2.0**53 - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=8,
)


def test_a_digest_names_its_algorithm() -> None:
    assert sha256_bytes(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_file_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc" * 100_000)
    assert sha256_file(tmp_path / "file") == sha256_bytes(b"abc" * 100_000)


def test_canonical_json_is_that_of_rfc_8785() -> None:
    value = {"\u20ac": "Euro", "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 1e-27], "a": [None, True]}
    assert canonical(value).decode() == (
        '{"a":[null,true],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"\u20ac":"Euro"}'
    )


@settings(deadline=None, max_examples=50)
@given(JSON)
def test_canonical_json_survives_reading_and_writing(value: object) -> None:
    assert canonical(json.loads(canonical(value))) == canonical(value)


def test_the_order_of_keys_does_not_matter() -> None:
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**60, {1: "a"}, {"a"}])
def test_what_json_cannot_say_has_no_digest(value: object) -> None:
    with pytest.raises(BadInput, match="no canonical JSON"):
        digest_of(value)


def test_a_folder_is_the_digests_of_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / ".hidden").write_bytes(b"1")
    (tmp_path / "a").write_bytes(b"2")
    (tmp_path / "empty").mkdir()
    files, digest = files_digest(tmp_path)
    assert list(files.items()) == [("a", sha256_bytes(b"2")), ("b/.hidden", sha256_bytes(b"1"))]
    assert digest == digest_of(files)


def test_a_folder_with_a_link_has_no_digest(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(BadInput, match="neither file nor folder"):
        files_digest(tmp_path)


def test_a_folder_with_a_pipe_has_no_digest(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="neither file nor folder"):
        files_digest(tmp_path)


def test_a_missing_folder_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        files_digest(tmp_path / "nowhere")
