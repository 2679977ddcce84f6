"""Statements: made, signed, verified, refused."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from hxmlops_evidence import dsse, keys, statements
from hxmlops_evidence.digests import canonical, sha256_bytes
from hxmlops_evidence.errors import BadInput, Refused

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
CONTRACT, SUBJECT = sha256_bytes(b"contract"), sha256_bytes(b"model.tar")
EXPECTED: dict[str, Any] = {
    "type_": "receipt",
    "issuer": "mno-production",
    "workflow_id": "churn",
    "audience": "mno-staging",
    "contract_digest": CONTRACT,
    "now": NOW,
}


@pytest.fixture
def receipt(world: Any, example: Callable[[str], Any]) -> Callable[..., Any]:
    """A receipt as `make` makes it; arguments override those of `make`."""

    def make(**more: Any) -> Any:
        return world.statement("receipt", "mno-production", "mno-staging", SUBJECT, example("receipt")["body"], **more)

    return make


@pytest.fixture
def envelope(world: Any, receipt: Callable[..., Any]) -> statements.Envelope:
    made: statements.Envelope = world.sign(receipt(), "mno-production")
    return made


def resigned(world: Any, statement: Any, signer: str = "mno-production") -> statements.Envelope:
    """An envelope around anything at all, properly signed."""
    key = keys.load_signing_key(world.signing_key(signer))
    return dsse.seal(statements.PAYLOAD_TYPE, canonical(statement), key)


def test_a_signed_statement_is_verified_and_read(world: Any, envelope: statements.Envelope) -> None:
    statement = statements.verify(envelope, world.trust, **EXPECTED)
    assert statement["issued_at"] == "2026-11-23T09:30:00Z"
    assert statement["expires_at"] == "2026-12-23T09:30:00Z"
    assert statement["body"]["recipient"] == "mno-production"
    assert statement == statements.read(envelope)


def test_a_statement_survives_being_written_as_json(world: Any, envelope: statements.Envelope) -> None:
    assert statements.verify(json.loads(json.dumps(envelope)), world.trust, **EXPECTED)


def test_the_digest_of_a_statement_leaves_out_the_signature(world: Any, receipt: Callable[..., Any]) -> None:
    one, other = (world.sign(receipt(), "mno-production") for _ in range(2))
    assert one["signatures"] != other["signatures"]
    assert statements.statement_digest(one) == statements.statement_digest(other)
    assert statements.statement_digest(one) == sha256_bytes(base64.b64decode(one["payload"]))


def test_the_payload_is_canonical_and_names_the_key(world: Any, envelope: statements.Envelope) -> None:
    payload = base64.b64decode(envelope["payload"])
    statement = json.loads(payload)
    key = keys.load_signing_key(world.signing_key("mno-production")).public_key()
    assert payload == canonical(statement)
    assert statement["issuer"] == {"party": "operator", "domain": "mno-production", "key_id": keys.key_id(key)}


def test_signing_leaves_the_statement_as_it_was(world: Any, receipt: Callable[..., Any]) -> None:
    statement = receipt()
    before = json.dumps(statement)
    world.sign(statement, "mno-production")
    assert json.dumps(statement) == before


def test_the_encoding_that_is_signed_is_that_of_dsse() -> None:
    """The example of the DSSE protocol's specification."""
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert dsse.pae("é", "é".encode()) == b"DSSEv1 2 \xc3\xa9 2 \xc3\xa9"


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_no_byte_of_the_payload_or_the_signature_can_change(
    world: Any, session_envelope: statements.Envelope, data: st.DataObject
) -> None:
    part = data.draw(st.sampled_from(["payload", "sig"]))
    changed = json.loads(json.dumps(session_envelope))
    holder = changed if part == "payload" else changed["signatures"][0]
    content = bytearray(base64.b64decode(holder[part]))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    holder[part] = base64.b64encode(content).decode()
    with pytest.raises(Refused):
        statements.verify(changed, world.trust, **EXPECTED)


@pytest.fixture(scope="session")
def session_envelope(world: Any) -> statements.Envelope:
    body = json.loads((Path(statements.__file__).parent / "examples" / "receipt.json").read_bytes())["body"]
    statement = world.statement("receipt", "mno-production", "mno-staging", SUBJECT, body)
    signed: statements.Envelope = world.sign(statement, "mno-production")
    return signed


def refusal(envelope: Any, world: Any, **changed: Any) -> str:
    with pytest.raises(Refused) as caught:
        statements.verify(envelope, world.trust, **{**EXPECTED, **changed})
    return str(caught.value)


def test_another_workflow_is_refused(world: Any, envelope: statements.Envelope) -> None:
    says = refusal(envelope, world, workflow_id="roaming")
    assert says == "workflow: receipt by mno-production is of workflow churn, not roaming"


def test_another_audience_is_refused(world: Any, envelope: statements.Envelope) -> None:
    says = refusal(envelope, world, audience="software-vendor")
    assert says == "audience: receipt by mno-production is meant for mno-staging, not software-vendor"


def test_another_contract_is_refused(world: Any, envelope: statements.Envelope) -> None:
    assert refusal(envelope, world, contract_digest=SUBJECT).startswith(
        "contract: receipt by mno-production is of another"
    )


def test_the_contract_may_be_left_open(world: Any, envelope: statements.Envelope) -> None:
    assert statements.verify(envelope, world.trust, **{**EXPECTED, "contract_digest": None})


def test_another_type_is_refused(world: Any, envelope: statements.Envelope) -> None:
    assert refusal(envelope, world, type_="evidence") == "statement: expected evidence, got receipt"


def test_another_issuer_is_refused(world: Any, envelope: statements.Envelope) -> None:
    says = refusal(envelope, world, issuer="software-vendor")
    assert says == "signature: receipt by mno-production must be signed by software-vendor"


def test_the_issuer_may_be_anyone_pinned(world: Any, envelope: statements.Envelope) -> None:
    assert statements.verify(envelope, world.trust, **{**EXPECTED, "issuer": None})


def test_an_expired_statement_is_refused(world: Any, envelope: statements.Envelope) -> None:
    says = refusal(envelope, world, now=NOW + timedelta(days=30))
    assert says == "expiry: receipt by mno-production expired at 2026-12-23T09:30:00Z; ask for a new one"


def test_a_statement_from_the_future_is_refused(world: Any, envelope: statements.Envelope) -> None:
    assert statements.verify(envelope, world.trust, **{**EXPECTED, "now": NOW - timedelta(minutes=5)})
    says = refusal(envelope, world, now=NOW - timedelta(minutes=6))
    assert says.startswith("expiry: receipt by mno-production is not valid before 2026-11-23T09:30:00Z")


def test_a_key_that_is_not_pinned_is_refused(world: Any, receipt: Callable[..., Any]) -> None:
    envelope = world.sign(receipt(), "stranger")
    key = envelope["signatures"][0]["keyid"][:19]
    assert refusal(envelope, world) == (
        f"signature: statement receipt by mno-production: key {key}… of mno-production"
        " is not pinned here; import its card with playbooks/keys.yml after comparing the fingerprint"
    )


def test_another_domains_key_is_refused(world: Any, receipt: Callable[..., Any]) -> None:
    assert "is not pinned here" in refusal(world.sign(receipt(), "software-vendor"), world)


def test_a_persons_key_signs_no_domains_statement(world: Any, receipt: Callable[..., Any]) -> None:
    envelope = world.sign(receipt(issuer={"party": "operator", "domain": "ada"}), "ada")
    assert "its pin says no" in refusal(envelope, world, issuer="ada")


def test_another_party_than_the_pinned_one_is_refused(world: Any, receipt: Callable[..., Any]) -> None:
    envelope = world.sign(receipt(issuer={"party": "vendor", "domain": "mno-production"}), "mno-production")
    assert "its pin says no" in refusal(envelope, world)


def test_a_key_id_that_is_not_the_signers_is_refused(world: Any, envelope: statements.Envelope) -> None:
    envelope["signatures"][0]["keyid"] = "sha256:" + "0" * 64
    assert refusal(envelope, world).startswith("signature: statement receipt names another key")


def test_a_signature_by_another_key_under_the_right_id_is_refused(world: Any, envelope: statements.Envelope) -> None:
    payload = base64.b64decode(envelope["payload"])
    forged = dsse.seal(statements.PAYLOAD_TYPE, payload, ec.generate_private_key(ec.SECP256R1()))
    envelope["signatures"][0]["sig"] = forged["signatures"][0]["sig"]
    assert refusal(envelope, world).endswith("was altered after it was signed; ask for it again")


def test_a_revoked_key_is_refused(own_world: Any, envelope: statements.Envelope) -> None:
    pins = own_world.folder / "trust" / "mno-production.json"
    pins.write_text(pins.read_text().replace('"revoked_at": null', '"revoked_at": "2026-11-23T09:00:00Z"'))
    assert refusal(envelope, own_world).startswith("revocation: statement receipt by mno-production: key")


def test_what_was_issued_before_its_key_is_refused(own_world: Any, envelope: statements.Envelope) -> None:
    pins = own_world.folder / "trust" / "mno-production.json"
    pins.write_text(pins.read_text().replace('"not_before": null', '"not_before": "2026-11-24T00:00:00Z"'))
    assert "is not valid before 2026-11-24" in refusal(envelope, own_world, now=NOW + timedelta(days=2))


def test_an_unknown_major_version_is_refused(world: Any, envelope: statements.Envelope) -> None:
    newer = resigned(world, statements.read(envelope) | {"schema_version": "2.0"})
    assert refusal(newer, world) == "statement: receipt has another major schema_version than 1.0; update hxmlops"


def test_a_newer_minor_version_that_says_nothing_new_is_understood(world: Any, envelope: statements.Envelope) -> None:
    newer = resigned(world, statements.read(envelope) | {"schema_version": "1.1"})
    assert statements.verify(newer, world.trust, **EXPECTED)


def test_an_unknown_field_is_refused(world: Any, envelope: statements.Envelope) -> None:
    newer = resigned(world, statements.read(envelope) | {"schema_version": "1.1", "waiver": "all"})
    assert refusal(newer, world) == "statement: receipt: document: unknown field waiver"


def test_an_unknown_type_is_refused(world: Any, envelope: statements.Envelope) -> None:
    assert "its type is none of" in refusal(resigned(world, statements.read(envelope) | {"type": "licence"}), world)


@pytest.mark.parametrize(
    "payload", [b"{", b"[]", b'{"a": 1}', b'{"type":"receipt","type":"receipt"}', b"[" * 100_000, b"\xff"]
)
def test_a_payload_that_is_no_canonical_json_mapping_is_refused(world: Any, payload: bytes) -> None:
    key = keys.load_signing_key(world.signing_key("mno-production"))
    assert refusal(dsse.seal(statements.PAYLOAD_TYPE, payload, key), world).startswith("statement: its payload is not")


@pytest.mark.parametrize(
    "change",
    [
        {"payloadType": "text/plain"},
        {"payload": "no base64!"},
        {"payload": None},
        {"signatures": []},
        {"signatures": [{"keyid": "a", "sig": ""}, {"keyid": "b", "sig": ""}]},
        {"signatures": [{"keyid": "a", "sig": "", "cert": ""}]},
        {"signatures": None},
        {"extra": 1},
    ],
)
def test_another_form_of_envelope_is_refused(world: Any, envelope: statements.Envelope, change: dict[str, Any]) -> None:
    assert refusal(envelope | change, world).startswith("statement: ")


@pytest.mark.parametrize("thing", [None, [], "text", {}])
def test_what_is_no_envelope_at_all_is_refused(world: Any, thing: Any) -> None:
    assert refusal(thing, world) == "statement: not a DSSE envelope with one signature; ask its issuer for it again"


def test_an_approval_is_signed_by_the_person_that_it_names(world: Any, example: Callable[[str], Any]) -> None:
    body = example("approval")["body"]
    approval = world.statement("approval", "mno-staging", "mno-production", SUBJECT, body)
    expected = {**EXPECTED, "type_": "approval", "issuer": "grace", "audience": "mno-production"}
    assert statements.verify(world.sign(approval, "grace"), world.trust, **expected)
    with pytest.raises(Refused, match="of grace is not pinned here"):
        statements.verify(world.sign(approval, "ada"), world.trust, **expected)
    with pytest.raises(Refused, match="of grace is not pinned here"):
        statements.verify(world.sign(approval, "mno-staging"), world.trust, **expected)


def test_a_statement_without_its_form_is_not_made(receipt: Callable[..., Any]) -> None:
    with pytest.raises(BadInput, match=r"^statement receipt: workflow_id: must have the form"):
        receipt(workflow_id="no spaces please")


def test_a_statement_of_an_unknown_type_is_not_made(world: Any) -> None:
    with pytest.raises(BadInput, match="statement type must be one of protection, evidence"):
        world.statement("licence", "mno-production", "mno-staging", SUBJECT, {})


def test_a_figure_that_is_no_number_is_not_signed(world: Any, example: Callable[[str], Any]) -> None:
    body = example("evidence")["body"]
    body["metrics"]["roc_auc"]["value"] = float("nan")
    statement = world.statement("evidence", "software-vendor", "mno-staging", SUBJECT, body)
    with pytest.raises(BadInput, match="no canonical JSON"):
        world.sign(statement, "software-vendor")


def test_verifying_needs_none_of_the_heavy_libraries() -> None:
    heavy = "{'model_signing', 'onnx', 'cyclonedx', 'numpy', 'pyrage', 'jsonschema'}"
    code = f"import sys, hxmlops_evidence.gates; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"
