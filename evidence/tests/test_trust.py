"""Pins: who is trusted, with which keys, when."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hxmlops_evidence import keys
from hxmlops_evidence.errors import BadInput, Refused
from hxmlops_evidence.trust import Trust, import_card

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def card(tmp_path: Path) -> keys.Card:
    keys.make_keys(tmp_path / "keys")
    return keys.make_card(tmp_path / "keys", party="vendor", domain="software-vendor")


@pytest.fixture
def next_card(tmp_path: Path) -> keys.Card:
    keys.make_keys(tmp_path / "next")
    return keys.make_card(tmp_path / "next", party="vendor", domain="software-vendor")


def signing_id(card: keys.Card) -> str:
    return str(card["keys"][0]["key_id"])


def pin(trust: Path, card: keys.Card, **times: Any) -> None:
    """Import a card and set its keys' times by hand."""
    import_card(trust, card, card["fingerprint"])
    path = trust / f"{card['name']}.json"
    document = json.loads(path.read_bytes())
    for key in document["keys"]:
        key |= times
    path.write_text(json.dumps(document))


def test_an_imported_card_is_pinned_once(tmp_path: Path, card: keys.Card) -> None:
    assert import_card(tmp_path / "trust", card, card["fingerprint"])
    assert not import_card(tmp_path / "trust", card, card["fingerprint"])
    trust = Trust(tmp_path / "trust")
    assert keys.key_id(trust.signing_key("software-vendor", signing_id(card), at=NOW)) == signing_id(card)
    assert trust.recipient("software-vendor", at=NOW) == card["keys"][1]["public"]
    assert (trust.party("software-vendor"), trust.kind("software-vendor")) == ("vendor", "domain")


def test_a_wrong_fingerprint_is_refused_and_nothing_is_learnt(tmp_path: Path, card: keys.Card) -> None:
    with pytest.raises(Refused, match=r"^fingerprint: the card of software-vendor has another fingerprint"):
        import_card(tmp_path / "trust", card, "sha256:" + "0" * 64)
    assert not (tmp_path / "trust").exists()


def test_a_card_whose_key_was_exchanged_is_refused(tmp_path: Path, card: keys.Card, next_card: keys.Card) -> None:
    card["keys"][0]["public"] = next_card["keys"][0]["public"]
    with pytest.raises(BadInput, match="is not what its id says"):
        import_card(tmp_path / "trust", card, card["fingerprint"])


def test_a_card_with_an_invented_fingerprint_is_refused(tmp_path: Path, card: keys.Card, next_card: keys.Card) -> None:
    with pytest.raises(BadInput, match="its fingerprint is not that of its keys"):
        import_card(tmp_path / "trust", card | {"fingerprint": next_card["fingerprint"]}, next_card["fingerprint"])


def test_a_card_with_an_unknown_field_is_refused(tmp_path: Path, card: keys.Card) -> None:
    with pytest.raises(BadInput, match="unknown field note"):
        import_card(tmp_path / "trust", card | {"note": "trust me"}, card["fingerprint"])


@pytest.mark.parametrize("name", ["../trust", "", ".hidden", "a/b", "a\n"])
def test_a_card_is_not_named_like_a_path(tmp_path: Path, card: keys.Card, name: str) -> None:
    with pytest.raises(BadInput, match="name: must have the form"):
        import_card(tmp_path / "trust", card | {"name": name}, card["fingerprint"])


def test_a_new_card_of_a_known_name_adds_keys(tmp_path: Path, card: keys.Card, next_card: keys.Card) -> None:
    assert import_card(tmp_path / "trust", card, card["fingerprint"])
    assert import_card(tmp_path / "trust", next_card, next_card["fingerprint"])
    trust = Trust(tmp_path / "trust")
    assert trust.signing_key("software-vendor", signing_id(card), at=NOW)
    assert trust.signing_key("software-vendor", signing_id(next_card), at=NOW)
    assert trust.recipient("software-vendor", at=NOW) == next_card["keys"][1]["public"]


def test_a_known_name_of_another_party_is_refused(tmp_path: Path, card: keys.Card) -> None:
    import_card(tmp_path / "trust", card, card["fingerprint"])
    other = keys.make_card(tmp_path / "keys", party="other", domain="software-vendor")
    with pytest.raises(Refused, match=r"^party: software-vendor is pinned as domain of vendor"):
        import_card(tmp_path / "trust", other, other["fingerprint"])


def test_a_key_has_one_owner(tmp_path: Path, card: keys.Card) -> None:
    import_card(tmp_path / "trust", card, card["fingerprint"])
    other = keys.make_card(tmp_path / "keys", party="vendor", domain="twin")
    with pytest.raises(Refused, match="a key of twin is pinned to software-vendor already"):
        import_card(tmp_path / "trust", other, other["fingerprint"])


def test_a_name_that_is_not_pinned_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        Refused, match=r"^signature: nobody is not pinned here; import its card with playbooks/keys\.yml"
    ):
        Trust(tmp_path).party("nobody")


def test_another_key_of_a_pinned_name_is_refused(tmp_path: Path, card: keys.Card, next_card: keys.Card) -> None:
    import_card(tmp_path / "trust", card, card["fingerprint"])
    with pytest.raises(Refused, match=r"^signature: key sha256:.{12}… of software-vendor is not pinned here"):
        Trust(tmp_path / "trust").signing_key("software-vendor", signing_id(next_card), at=NOW)


def test_an_encryption_key_signs_nothing(tmp_path: Path, card: keys.Card) -> None:
    import_card(tmp_path / "trust", card, card["fingerprint"])
    with pytest.raises(Refused, match="is not pinned here"):
        Trust(tmp_path / "trust").signing_key("software-vendor", card["keys"][1]["key_id"], at=NOW)


def test_a_key_is_used_within_its_time_only(tmp_path: Path, card: keys.Card) -> None:
    pin(tmp_path / "trust", card, not_before="2026-11-01T00:00:00Z", not_after="2026-11-30T00:00:00Z")
    trust = Trust(tmp_path / "trust")
    assert trust.signing_key("software-vendor", signing_id(card), at=NOW)
    with pytest.raises(Refused, match="is not valid before 2026-11-01"):
        trust.signing_key("software-vendor", signing_id(card), at=NOW - timedelta(days=30))
    with pytest.raises(Refused, match="was valid until 2026-11-30"):
        trust.signing_key("software-vendor", signing_id(card), at=NOW + timedelta(days=30))
    with pytest.raises(Refused, match=r"^recipient: no valid encryption key of software-vendor"):
        trust.recipient("software-vendor", at=NOW + timedelta(days=30))


def test_a_revoked_key_is_refused_from_then_on(tmp_path: Path, card: keys.Card) -> None:
    pin(tmp_path / "trust", card, revoked_at="2026-11-23T12:00:00Z")
    trust = Trust(tmp_path / "trust")
    assert trust.signing_key("software-vendor", signing_id(card), at=NOW - timedelta(seconds=1))
    with pytest.raises(Refused, match=r"^revocation: key .* of software-vendor was revoked at 2026-11-23T12:00:00Z"):
        trust.signing_key("software-vendor", signing_id(card), at=NOW)


def test_a_person_is_found_by_the_key(tmp_path: Path, card: keys.Card) -> None:
    ada = keys.make_person(tmp_path / "people", party="operator", person="ada")
    for each in (ada, card):
        import_card(tmp_path / "trust", each, each["fingerprint"])
    trust = Trust(tmp_path / "trust")
    assert trust.person(signing_id(ada)) == "ada"
    with pytest.raises(Refused, match="is no pinned person's"):
        trust.person(signing_id(card))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda _: None, "document: must be object"),
        (lambda pins: pins | {"extra": 1}, "unknown field extra"),
        (lambda pins: pins | {"name": "other"}, "its name is not the file's"),
        (lambda pins: pins | {"keys": [pins["keys"][0] | {"not_after": "2026-13-01T00:00:00Z"}]}, "breaks format"),
        (lambda pins: pins | {"keys": [pins["keys"][0] | {"public": pins["keys"][1]["public"]}]}, "ECDSA P-256"),
        (lambda pins: pins | {"keys": [pins["keys"][1] | {"public": "age1other"}]}, "is not what its id says"),
    ],
)
def test_a_damaged_pin_stops_everything(tmp_path: Path, card: keys.Card, damage: Any, says: str) -> None:
    import_card(tmp_path / "trust", card, card["fingerprint"])
    path = tmp_path / "trust" / "software-vendor.json"
    path.write_text(json.dumps(damage(json.loads(path.read_bytes()))))
    with pytest.raises(BadInput, match=says):
        Trust(tmp_path / "trust").party("software-vendor")


def test_a_pin_that_is_not_json_stops_everything(tmp_path: Path) -> None:
    (tmp_path / "vendor.json").write_text("{")
    with pytest.raises(BadInput, match=r"vendor\.json: not JSON"):
        Trust(tmp_path).party("vendor")
