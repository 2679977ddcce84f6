"""A domain's keys, one purpose each, and the public cards that peers pin.

`signing.pem` ECDSA P-256 (PKCS #8), `encryption.age` an age X25519 identity, `pseudonym.key` and `split.key`
32 random bytes in hexadecimal. Nothing here rotates or overwrites a key.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hxmlops_evidence.digests import digest_of, sha256_bytes
from hxmlops_evidence.errors import BadInput
from hxmlops_evidence.files import create_private

SIGNING, ENCRYPTION, PSEUDONYM, SPLIT = "signing.pem", "encryption.age", "pseudonym.key", "split.key"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")

type Card = dict[str, Any]
"""schemas/card.schema.json: a name's public keys and their fingerprint."""


def make_keys(folder: Path) -> bool:
    """Make what is missing of a domain's keys; True when something was made."""
    made = [
        create_private(folder / SIGNING, _new_signing_key()),
        create_private(folder / ENCRYPTION, _new_identity()),
        create_private(folder / PSEUDONYM, f"{secrets.token_hex(32)}\n".encode()),
        create_private(folder / SPLIT, f"{secrets.token_hex(32)}\n".encode()),
    ]
    return any(made)


def make_card(folder: Path, *, party: str, domain: str) -> Card:
    """The public card of the domain whose keys are in `folder`."""
    signing = load_signing_key(folder / SIGNING).public_key()
    recipient = load_recipient(folder / ENCRYPTION)
    keys = [
        _card_key("signing", key_id(signing), public_pem(signing)),
        _card_key("encryption", recipient_key_id(recipient), recipient),
    ]
    return _card(domain, "domain", party, keys)


def make_person(folder: Path, *, party: str, person: str) -> Card:
    """A person's signing key `folder/<person>.pem`, made when missing, and the card of it."""
    if not _NAME.fullmatch(person):
        raise BadInput(f"person: a name has the form {_NAME.pattern}")
    path = folder / f"{person}.pem"
    create_private(path, _new_signing_key())
    public = load_signing_key(path).public_key()
    return _card(person, "person", party, [_card_key("signing", key_id(public), public_pem(public))])


def load_signing_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """BadInput when there is no such key, others may read it, or it is not ECDSA P-256."""
    try:
        key = serialization.load_pem_private_key(_read_private(path), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadInput(f"{path}: no unencrypted ECDSA P-256 key in PEM; make keys with playbooks/keys.yml")
    return key


def load_public_key(pem: str) -> ec.EllipticCurvePublicKey:
    """BadInput when it is not an ECDSA P-256 public key in PEM."""
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except ValueError:
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadInput("not an ECDSA P-256 public key in PEM")
    return key


def load_recipient(path: Path) -> str:
    """The public age recipient (`age1...`) of the identity in this file."""
    import pyrage

    try:
        lines = _read_private(path).decode("ascii").splitlines()
        [identity] = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        return str(pyrage.x25519.Identity.from_str(identity).to_public())
    except (ValueError, pyrage.IdentityError):
        raise BadInput(f"{path}: not one age X25519 identity; make keys with playbooks/keys.yml") from None


def read_secret(path: Path) -> bytes:
    """The 32 bytes of a pseudonym or split key."""
    try:
        secret = bytes.fromhex(_read_private(path).decode("ascii"))
    except ValueError:
        secret = b""
    if len(secret) != 32:
        raise BadInput(f"{path}: not 32 bytes in hexadecimal; make keys with playbooks/keys.yml")
    return secret


def public_pem(key: ec.EllipticCurvePublicKey) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode("ascii")


def key_id(public_key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 of the key's SubjectPublicKeyInfo in DER."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return sha256_bytes(public_key.public_bytes(serialization.Encoding.DER, form))


def recipient_key_id(recipient: str) -> str:
    """SHA-256 of an age recipient's text."""
    return sha256_bytes(recipient.encode("ascii"))


def fingerprint(card: Card) -> str:
    """What two people compare: binds the name, its kind and party, and every key of the card."""
    keys = [{name: key[name] for name in ("purpose", "key_id", "public")} for key in card["keys"]]
    return digest_of({"name": card["name"], "kind": card["kind"], "party": card["party"], "keys": keys})


def _card(name: str, kind: str, party: str, keys: list[dict[str, Any]]) -> Card:
    from hxmlops_evidence.validation import problem_with

    card: Card = {"schema_version": "1.0", "name": name, "kind": kind, "party": party, "keys": keys}
    card["fingerprint"] = fingerprint(card)
    if problem := problem_with("card", card):
        raise BadInput(f"card of {name}: {problem}")
    return card


def _card_key(purpose: str, identifier: str, public: str) -> dict[str, Any]:
    return {"purpose": purpose, "key_id": identifier, "public": public, "not_before": None, "not_after": None}


def _new_signing_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _new_identity() -> bytes:
    import pyrage

    return f"{pyrage.x25519.Identity.generate()}\n".encode()


def _read_private(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read()
        if path.stat().st_mode & 0o007:
            raise BadInput(f"{path}: everyone may read this secret; run chmod 600 on it")
    except FileNotFoundError:
        raise BadInput(f"{path}: no such key; make keys with playbooks/keys.yml") from None
    return data
