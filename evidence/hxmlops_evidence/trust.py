"""Whom a domain trusts: one pinned file a name, `<domain>/trust/<name>.json`, kept by hand and by
`import_card`.

Several keys of one purpose may overlap, so that a peer can change its key. Nothing is learnt on first use.
"""

from __future__ import annotations

import functools
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from hxmlops_evidence import keys
from hxmlops_evidence.errors import BadInput, Refused
from hxmlops_evidence.files import write_atomic
from hxmlops_evidence.validation import problem_with

HOW = "import its card with playbooks/keys.yml after comparing the fingerprint"


def import_card(trust: Path, card: keys.Card, fingerprint: str) -> bool:
    """Pin a card whose `fingerprint` was compared out of band; True when a pin was added.

    A new card of a known name adds its keys beside the old ones, which stay until somebody sets `not_after`
    or `revoked_at`. Refused for another fingerprint, a known name's other party, or a key that is pinned to
    another name.
    """
    check_card(card)
    name = card["name"]
    if keys.fingerprint(card) != fingerprint.strip().lower():
        raise Refused(
            "fingerprint",
            f"the card of {name} has another fingerprint than the one given; ask {name} by another way",
        )
    path = trust / f"{name}.json"
    pin = _read(path) if path.exists() else {**{k: card[k] for k in ("name", "kind", "party")}, "keys": []}
    if (pin["kind"], pin["party"]) != (card["kind"], card["party"]):
        raise Refused("party", f"{name} is pinned as {pin['kind']} of {pin['party']}; remove {path} if that was wrong")
    known = {key["key_id"] for key in pin["keys"]}
    new = [{**key, "revoked_at": None} for key in card["keys"] if key["key_id"] not in known]
    if not new:
        return False
    others = {key["key_id"]: other["name"] for other in _pins(trust).values() for key in other["keys"]}
    for key in new:
        if key["key_id"] in others:
            raise Refused("party", f"a key of {name} is pinned to {others[key['key_id']]} already; a key has one owner")
    pin["keys"] += new
    write_atomic(path, (json.dumps(pin, indent=2) + "\n").encode(), 0o600)
    return True


def check_card(card: keys.Card) -> None:
    """BadInput unless the card has its form, and its key ids and fingerprint are those of its keys."""
    if problem := problem_with("card", card):
        raise BadInput(f"card: {problem}; ask for it again")
    for key in card["keys"]:
        _check_key(key, f"card of {card['name']}")
    if keys.fingerprint(card) != card["fingerprint"]:
        raise BadInput(f"card of {card['name']}: its fingerprint is not that of its keys; ask for it again")


class Trust:
    """The pins in one folder, read when first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def signing_key(self, name: str, key_id: str, *, at: datetime) -> ec.EllipticCurvePublicKey:
        """The pinned key by which `name` may sign at that time.

        Refused("signature") when it is not pinned or out of its time, Refused("revocation") when it is
        revoked.
        """
        for key in self._pin(name)["keys"]:
            if key["key_id"] == key_id and key["purpose"] == "signing":
                _check_time(name, key, at)
                return keys.load_public_key(key["public"])
        raise Refused("signature", f"key {short(key_id)} of {name} is not pinned here; {HOW}")

    def signing_keys(self) -> list[tuple[str, str]]:
        """(domain's name, key id) of every pinned signing key, also of those that are not valid now."""
        return [
            (name, key["key_id"])
            for name, pin in self._all.items()
            for key in pin["keys"]
            if (pin["kind"], key["purpose"]) == ("domain", "signing")
        ]

    def recipient(self, name: str, *, at: datetime) -> str:
        """The age recipient to encrypt to: of the valid ones, that pinned last. Refused("recipient") without
        any.
        """
        for key in reversed(self._pin(name)["keys"]):
            if key["purpose"] == "encryption" and _is_valid(key, at):
                return str(key["public"])
        raise Refused("recipient", f"no valid encryption key of {name} is pinned; {HOW}")

    def person(self, key_id: str) -> str:
        """The person to whom this key is pinned. Refused("signature") when it is nobody's."""
        for pin in self._all.values():
            if pin["kind"] == "person" and any(key["key_id"] == key_id for key in pin["keys"]):
                return str(pin["name"])
        raise Refused("signature", f"key {short(key_id)} is no pinned person's; {HOW}")

    def party(self, name: str) -> str:
        return str(self._pin(name)["party"])

    def kind(self, name: str) -> str:
        """`domain` or `person`."""
        return str(self._pin(name)["kind"])

    @functools.cached_property
    def _all(self) -> dict[str, dict[str, Any]]:
        return _pins(self.folder)

    def _pin(self, name: str) -> dict[str, Any]:
        if name not in self._all:
            raise Refused("signature", f"{name} is not pinned here; {HOW}")
        return self._all[name]


def short(key_id: str) -> str:
    """Enough of a digest for a message."""
    return f"{key_id[:19]}…"


def parse_time(text: str) -> datetime:
    """A time of a document that has passed its schema."""
    return datetime.fromisoformat(text)


def _check_time(name: str, key: dict[str, Any], at: datetime) -> None:
    which = f"key {short(key['key_id'])} of {name}"
    if key["revoked_at"] and at >= parse_time(key["revoked_at"]):
        raise Refused("revocation", f"{which} was revoked at {key['revoked_at']}; ask {name} to sign with a new key")
    if key["not_before"] and at < parse_time(key["not_before"]):
        raise Refused("signature", f"{which} is not valid before {key['not_before']}; {HOW}")
    if key["not_after"] and at > parse_time(key["not_after"]):
        raise Refused("signature", f"{which} was valid until {key['not_after']}; {HOW}")


def _is_valid(key: dict[str, Any], at: datetime) -> bool:
    try:
        _check_time("", key, at)
    except Refused:
        return False
    return True


def _pins(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: _read(path) for path in sorted(folder.glob("*.json"))}


def _read(path: Path) -> dict[str, Any]:
    """One name's pins. BadInput when the file is not what `import_card` writes."""
    try:
        pin = json.loads(path.read_bytes())
        problem = problem_with("trust", pin)
    except (ValueError, RecursionError):
        problem = "not JSON"
    if not problem and pin["name"] != path.stem:
        problem = "its name is not the file's"
    if problem:
        raise BadInput(f"{path}: {problem}; mend it, or remove it and import the card again")
    for key in pin["keys"]:
        _check_key(key, str(path))
    return dict(pin)


def _check_key(key: dict[str, Any], where: str) -> None:
    """BadInput unless the key's id is that of its public part."""
    if key["purpose"] == "signing":
        actual = keys.key_id(keys.load_public_key(key["public"]))
    else:
        actual = keys.recipient_key_id(key["public"])
    if actual != key["key_id"]:
        raise BadInput(f"{where}: key {short(key['key_id'])} is not what its id says; import the card again")
