"""A domain's keys and its public card."""

from __future__ import annotations

from pathlib import Path

import pyrage
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hxmlops_evidence import keys
from hxmlops_evidence.errors import BadInput
from hxmlops_evidence.trust import check_card


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert keys.make_keys(tmp_path / "keys")
    return tmp_path / "keys"


def test_there_is_one_key_for_each_purpose(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == {"signing.pem", "encryption.age", "pseudonym.key", "split.key"}
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_making_keys_again_changes_nothing(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert not keys.make_keys(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_missing_key_is_made_beside_the_others(folder: Path) -> None:
    signing = (folder / "signing.pem").read_bytes()
    (folder / "split.key").unlink()
    assert keys.make_keys(folder)
    assert (folder / "signing.pem").read_bytes() == signing


def test_pseudonym_and_split_keys_are_32_different_bytes(folder: Path) -> None:
    pseudonym, split = keys.read_secret(folder / "pseudonym.key"), keys.read_secret(folder / "split.key")
    assert len(pseudonym) == len(split) == 32
    assert pseudonym != split


def test_what_is_encrypted_to_a_card_its_domain_can_read(folder: Path) -> None:
    card = keys.make_card(folder, party="vendor", domain="software-vendor")
    [recipient] = [key["public"] for key in card["keys"] if key["purpose"] == "encryption"]
    identity = pyrage.x25519.Identity.from_str((folder / "encryption.age").read_text().strip())
    assert pyrage.decrypt(pyrage.encrypt(b"rows", [pyrage.x25519.Recipient.from_str(recipient)]), [identity]) == b"rows"


def test_a_card_is_the_same_each_time_and_says_nothing_secret(folder: Path) -> None:
    card = keys.make_card(folder, party="vendor", domain="software-vendor")
    assert card == keys.make_card(folder, party="vendor", domain="software-vendor")
    check_card(card)
    assert "PRIVATE" not in str(card)
    assert "AGE-SECRET" not in str(card)


def test_a_fingerprint_binds_name_party_and_keys(folder: Path) -> None:
    card = keys.make_card(folder, party="vendor", domain="software-vendor")
    changed = [card | {"name": "other"}, card | {"party": "other"}, card | {"keys": card["keys"][:1]}]
    assert len({keys.fingerprint(each) for each in [card, *changed]}) == 4


def test_a_key_id_is_the_digest_of_the_public_key_in_der() -> None:
    pem = """-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEIA9F+iOuImjaCYSnelAnbUCbU6dK
39KRyeZvE0zfF0baeK2JH7VpU6Y/tZbPPM4rvKz2lhAcWEfbKPdXL8EDXA==
-----END PUBLIC KEY-----
"""
    expected = "sha256:f869664cafa6a05ea928b6673bc44c45ee6e42498dd81548ffefd0fc2512a074"
    assert keys.key_id(keys.load_public_key(pem)) == expected


def test_a_person_has_a_signing_key_only(tmp_path: Path) -> None:
    card = keys.make_person(tmp_path, party="operator", person="ada")
    assert card == keys.make_person(tmp_path, party="operator", person="ada")
    assert (card["kind"], [key["purpose"] for key in card["keys"]]) == ("person", ["signing"])


def test_a_person_is_not_named_like_a_path(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="a name has the form"):
        keys.make_person(tmp_path / "people", party="operator", person="../ada")
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_everyone_may_read_is_not_used(folder: Path) -> None:
    (folder / "signing.pem").chmod(0o644)
    with pytest.raises(BadInput, match="run chmod 600"):
        keys.load_signing_key(folder / "signing.pem")


def test_a_missing_key_is_said_to_be_missing(folder: Path) -> None:
    with pytest.raises(BadInput, match=r"no such key; make keys with playbooks/keys\.yml"):
        keys.load_signing_key(folder / "other.pem")


def test_a_key_of_another_curve_is_not_used(folder: Path) -> None:
    pem = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "signing.pem").write_bytes(pem)
    with pytest.raises(BadInput, match="no unencrypted ECDSA P-256 key"):
        keys.load_signing_key(folder / "signing.pem")


@pytest.mark.parametrize("content", [b"", b"zz", b"00" * 31])
def test_a_damaged_secret_is_not_used(folder: Path, content: bytes) -> None:
    (folder / "split.key").write_bytes(content)
    with pytest.raises(BadInput, match="not 32 bytes"):
        keys.read_secret(folder / "split.key")


@pytest.mark.parametrize("content", [b"", b"AGE-SECRET-KEY-1XYZ\n", b"\xff"])
def test_a_damaged_identity_is_not_used(folder: Path, content: bytes) -> None:
    (folder / "encryption.age").write_bytes(content)
    with pytest.raises(BadInput, match="not one age X25519 identity"):
        keys.load_recipient(folder / "encryption.age")


def test_an_identity_with_comments_as_age_keygen_writes_it_is_read(folder: Path) -> None:
    before = keys.load_recipient(folder / "encryption.age")
    text = (folder / "encryption.age").read_text()
    (folder / "encryption.age").write_text(f"# created: 2026-11-23\n# public key: {before}\n{text}")
    assert keys.load_recipient(folder / "encryption.age") == before
