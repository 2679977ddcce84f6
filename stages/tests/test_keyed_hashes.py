"""Pseudonyms are HMAC-SHA256 as Python's hmac makes them; keys are never in a query's text."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import ibis
import numpy as np
import pytest

from hxmlops_recipe.tables import database
from hxmlops_stages.keyed_hashes import below, derive, token, with_hmac

SUBJECTS = ["1", "4790012345", "Ærlig ☎", "a" * 200, ""]


@pytest.mark.parametrize("key", [b"\0" * 32, bytes(range(32)), b"k" * 64, b"k" * 65], ids=len)
def test_a_column_is_hashed_as_pythons_hmac_does(tmp_path: Path, key: bytes) -> None:
    with database(tmp_path / "scratch") as tables:
        table = tables.bind("subjects", {"subject": np.array(SUBJECTS, object)})
        found = tables.rows(with_hmac(tables, table, "pseudonym", "subject", key))
    expected = [hmac.new(key, subject.encode(), hashlib.sha256).hexdigest() for subject in SUBJECTS]
    assert [row["pseudonym"] for row in found] == expected


def test_each_row_can_take_the_key_of_its_part(tmp_path: Path) -> None:
    keys = {False: b"\x01" * 32, True: b"\x02" * 32}
    with database(tmp_path / "scratch") as tables:
        table = tables.bind("subjects", {"subject": np.arange(4), "hidden": np.array([False, True, True, False])})
        found = tables.rows(with_hmac(tables, table, "pseudonym", "subject", keys, by="hidden"))
    for row in found:
        key = keys[row["hidden"]]
        assert row["pseudonym"] == hmac.new(key, str(row["subject"]).encode(), hashlib.sha256).hexdigest()
    assert len(found) == 4


def test_no_key_is_in_the_text_of_a_query(tmp_path: Path) -> None:
    key = bytes(range(32, 64))
    with database(tmp_path / "scratch") as tables:
        table = tables.bind("subjects", {"subject": np.array(SUBJECTS, object)})
        text = str(ibis.to_sql(with_hmac(tables, table, "pseudonym", "subject", key)))
    inner = bytes(byte ^ 0x36 for byte in key)
    for secret in (key, inner):
        assert secret.hex() not in text.lower()
        assert secret.decode("latin-1") not in text


def test_keys_for_different_purposes_are_unrelated() -> None:
    secret = b"s" * 32
    keys = {derive(secret, "pseudonym", "churn", vendor) for vendor in ("vendor-1", "vendor-2")}
    assert len(keys | {derive(secret, "row token", "churn"), derive(secret, "pseudonym churn", "vendor-1")}) == 4


def test_a_token_is_short_and_keyed() -> None:
    assert len(token(b"a", 17)) == 16
    assert token(b"a", 17) != token(b"b", 17)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.999])
def test_that_share_of_all_hashes_is_below(share: float) -> None:
    hashes = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(20_000)]
    assert np.mean([digest[:13] < below(share) for digest in hashes]) == pytest.approx(share, abs=0.01)
