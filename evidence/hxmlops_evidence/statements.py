"""Signed statements about artifacts: made, signed, and verified by their receivers.

A statement is JSON by `schemas/<type>.schema.json`. Its signed form is a DSSE envelope around its canonical
bytes (RFC 8785). A receiver refuses what it does not fully understand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from hxmlops_evidence import dsse
from hxmlops_evidence.digests import Json, canonical, sha256_bytes
from hxmlops_evidence.dsse import Envelope as Envelope
from hxmlops_evidence.errors import BadInput, Refused
from hxmlops_evidence.keys import key_id
from hxmlops_evidence.trust import Trust, parse_time
from hxmlops_evidence.validation import problem_with

TYPES = ("protection", "evidence", "acceptance", "approval", "receipt")
PAYLOAD_TYPE = "application/vnd.hxmlops.statement+json"
SCHEMA_VERSION = "1.0"
CLOCK_SKEW = timedelta(minutes=5)
"""How far an issuer's clock may be ahead of ours."""

type Statement = dict[str, Any]


def make(
    type_: str,
    *,
    workflow_id: str,
    contract_digest: str,
    run_id: str,
    issuer: Mapping[str, str],
    audience: str,
    subject_digest: str,
    inputs: Mapping[str, str],
    sequence: int,
    valid_days: float,
    body: Mapping[str, Json],
    issued_at: datetime | None = None,
) -> Statement:
    """A statement by `issuer` (`party` and `domain`; `sign` adds the key's id) for the domain `audience`.

    BadInput when it does not have the form of its schema.
    """
    issued = (issued_at or datetime.now(UTC)).astimezone(UTC).replace(microsecond=0)
    statement: Statement = {
        "type": type_,
        "schema_version": SCHEMA_VERSION,
        "workflow_id": workflow_id,
        "contract_digest": contract_digest,
        "run_id": run_id,
        "issuer": {"party": issuer["party"], "domain": issuer["domain"]},
        "audience": audience,
        "subject_digest": subject_digest,
        "inputs": dict(inputs),
        "sequence": sequence,
        "issued_at": _rfc3339(issued),
        "expires_at": _rfc3339(issued + timedelta(days=valid_days)),
        "body": dict(body),
    }
    _check_form({**statement, "issuer": {**statement["issuer"], "key_id": sha256_bytes(b"not signed yet")}})
    return statement


def sign(statement: Statement, key: ec.EllipticCurvePrivateKey) -> Envelope:
    """The statement in a signed envelope, with the key's id among its issuer. BadInput when it lacks its
    form.
    """
    signed = {**statement, "issuer": {**statement["issuer"], "key_id": key_id(key.public_key())}}
    _check_form(signed)
    return dsse.seal(PAYLOAD_TYPE, canonical(signed), key)


def statement_digest(envelope: Envelope) -> str:
    """Digest of the payload, the signature left out. Refused("statement") when it is no envelope."""
    return sha256_bytes(_unpacked(envelope)[0])


def read(envelope: Envelope) -> Statement:
    """What an envelope says, nothing verified but its form; Refused("statement") when it has not that."""
    payload = _unpacked(envelope)[0]
    try:
        statement = json.loads(payload)
        is_canonical = canonical(statement) == payload
    except (ValueError, RecursionError, BadInput):
        raise Refused("statement", "its payload is not JSON; ask its issuer for it again") from None
    if not is_canonical or not isinstance(statement, dict):
        raise Refused("statement", "its payload is not a mapping in canonical form (RFC 8785)")
    if statement.get("type") not in TYPES:
        raise Refused("statement", f"its type is none of {', '.join(TYPES)}")
    type_, version = statement["type"], str(statement.get("schema_version"))
    if version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        raise Refused("statement", f"{type_} has another major schema_version than {SCHEMA_VERSION}; update hxmlops")
    if problem := problem_with(type_, statement):
        raise Refused("statement", f"{type_}: {problem}")
    return statement


def verify(
    envelope: Envelope,
    trust: Trust,
    *,
    type_: str,
    issuer: str | None,
    workflow_id: str,
    audience: str,
    contract_digest: str | None,
    now: datetime | None = None,
) -> Statement:
    """The statement, when it is what a receiver may rely on; else Refused with one of these criteria.

    statement: form, schema, type. signature: by a key that is pinned for its issuer (an approval's issuer is
    a person). revocation, workflow, audience, contract (None: not compared), expiry. `issuer` is the domain,
    or for an approval the person, that must have signed; None leaves it open among those pinned.
    """
    statement = read(envelope)
    now = now or datetime.now(UTC)
    if statement["type"] != type_:
        raise Refused("statement", f"expected {type_}, got {statement['type']}")
    signer = _check_signature(envelope, statement, trust, now)
    what = f"{type_} by {signer}"
    if issuer is not None and signer != issuer:
        raise Refused("signature", f"{what} must be signed by {issuer}")
    if statement["workflow_id"] != workflow_id:
        raise Refused("workflow", f"{what} is of workflow {statement['workflow_id']}, not {workflow_id}")
    if statement["audience"] != audience:
        raise Refused("audience", f"{what} is meant for {statement['audience']}, not {audience}")
    if contract_digest is not None and statement["contract_digest"] != contract_digest:
        raise Refused("contract", f"{what} is of another contract; compare the workflow files' contract with {signer}")
    if parse_time(statement["issued_at"]) > now + CLOCK_SKEW:
        raise Refused("expiry", f"{what} is not valid before {statement['issued_at']}; compare the clocks")
    if now >= parse_time(statement["expires_at"]):
        raise Refused("expiry", f"{what} expired at {statement['expires_at']}; ask for a new one")
    return statement


def _check_signature(envelope: Envelope, statement: Statement, trust: Trust, now: datetime) -> str:
    """The pinned name whose key signed: a domain, or for an approval a person."""
    payload, keyid, signature = _unpacked(envelope)
    type_, issuer = statement["type"], statement["issuer"]
    if keyid != issuer["key_id"]:
        raise Refused("signature", f"statement {type_} names another key than the one that signed it")
    kind = "person" if type_ == "approval" else "domain"
    name = str(statement["body"]["person"] if kind == "person" else issuer["domain"])
    try:
        key = trust.signing_key(name, keyid, at=now)
        trust.signing_key(name, keyid, at=parse_time(statement["issued_at"]))
    except Refused as refusal:
        raise Refused(refusal.criterion, f"statement {type_} by {name}: {refusal.reason}") from None
    if (trust.kind(name), trust.party(name)) != (kind, issuer["party"]):
        raise Refused("signature", f"statement {type_} says {name} is a {kind} of {issuer['party']}, its pin says no")
    if not dsse.is_signed_by(key, PAYLOAD_TYPE, payload, signature):
        raise Refused("signature", f"statement {type_} by {name} was altered after it was signed; ask for it again")
    return name


def _unpacked(envelope: Envelope) -> tuple[bytes, str, bytes]:
    try:
        return dsse.unpacked(envelope, PAYLOAD_TYPE)
    except ValueError as problem:
        raise Refused("statement", f"{problem}; ask its issuer for it again") from None


def _check_form(statement: Statement) -> None:
    if statement["type"] not in TYPES:
        raise BadInput(f"statement type must be one of {', '.join(TYPES)}")
    if problem := problem_with(statement["type"], statement):
        raise BadInput(f"statement {statement['type']}: {problem}")


def _rfc3339(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")
