"""The gates of a domain that is to serve a model: on its acceptance, and on an approval."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hxmlops_evidence import keys, statements
from hxmlops_evidence.digests import digest_of, sha256_bytes, sha256_file
from hxmlops_evidence.errors import Refused
from hxmlops_evidence.gates import gate_acceptance, gate_approval
from hxmlops_evidence.sequences import record_sequence

type SignedModel = Callable[..., tuple[Path, statements.Envelope]]

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
CONTRACT = sha256_bytes(b"contract")


def names(criteria: list[dict[str, Any]]) -> set[str]:
    assert all(each["passed"] for each in criteria)
    return {each["criterion"] for each in criteria}


def says(gate: Callable[..., Any], *arguments: Any, **changed: Any) -> str:
    with pytest.raises(Refused) as caught:
        gate(*arguments, **changed)
    return str(caught.value)


# An acceptance


@pytest.fixture
def accepted(world: Any, signed_model: SignedModel, example: Callable[[str], Any]) -> Callable[..., Any]:
    """A model and its acceptance: (tar, envelope); keywords change the body, `statement` the arguments of
    `make`.
    """

    def make(statement: dict[str, Any] | None = None, signer: str = "mno-staging", **body: Any) -> Any:
        tar, evidence = signed_model()
        made = statements.read(evidence)
        body = example("acceptance")["body"] | {
            "artifact_digest": sha256_file(tar),
            "recipe_digest": made["body"]["dataset"]["recipe_digest"],
            "proposer": {"person": "ada", "key_id": person_key_id(world, "ada")},
            **body,
        }
        arguments = {"issued_at": NOW, **(statement or {})}
        subject = made["subject_digest"]
        verdict = world.statement("acceptance", "mno-staging", "mno-production", subject, body, **arguments)
        return tar, world.sign(verdict, signer)

    return make


def person_key_id(world: Any, person: str) -> str:
    return keys.key_id(keys.load_signing_key(world.signing_key(person)).public_key())


@pytest.fixture
def gate_on_acceptance(world: Any, tmp_path: Path) -> Callable[..., Any]:
    def call(tar: Path, acceptance: statements.Envelope, **changed: Any) -> Any:
        arguments: dict[str, Any] = {
            "tar": tar,
            "folder": tmp_path / "gated",
            "acceptance": acceptance,
            "trust": world.trust,
            "domain": tmp_path / "domain",
            "acceptor": "mno-staging",
            "vendor": "software-vendor",
            "workflow_id": "churn",
            "audience": "mno-production",
            "contract_digest": CONTRACT,
            "now": NOW,
        }
        return gate_acceptance(**{**arguments, **changed})

    return call


def test_an_accepted_model_passes(gate_on_acceptance: Any, accepted: Any, tmp_path: Path) -> None:
    passed = names(gate_on_acceptance(*accepted()))
    assert {"signature", "expiry", "sequence", "decision", "artifact", "archive", "members", "digests", "bom"} <= passed
    assert (tmp_path / "gated" / "model.onnx").exists()


def test_an_acceptance_of_another_artifact_is_refused(gate_on_acceptance: Any, accepted: Any, tmp_path: Path) -> None:
    refusal = says(gate_on_acceptance, *accepted(artifact_digest=sha256_bytes(b"other")))
    assert refusal.startswith("artifact: mno-staging accepted another artifact than this one")
    assert not (tmp_path / "gated").exists()


@pytest.mark.parametrize(
    "other",
    [
        {"statement": {"subject_digest": sha256_bytes(b"other model")}},
        {"vendor": "other-vendor"},
        {"recipe_digest": sha256_bytes(b"other recipe")},
        {"name": "roaming"},
        {"version": "9.9.9"},
    ],
)
def test_an_acceptance_that_speaks_of_another_model_is_refused(
    gate_on_acceptance: Any, accepted: Any, tmp_path: Path, other: dict[str, Any]
) -> None:
    assert says(gate_on_acceptance, *accepted(**other)).startswith(
        "artifact: mno-staging's acceptance speaks of another"
    )
    assert not (tmp_path / "gated").exists()


def test_a_rejected_model_is_refused(gate_on_acceptance: Any, accepted: Any) -> None:
    assert says(gate_on_acceptance, *accepted(decision="rejected")).startswith("decision: mno-staging did not accept")


def test_an_acceptance_with_a_failed_criterion_is_refused(gate_on_acceptance: Any, accepted: Any) -> None:
    failed = [{"criterion": "roc_auc", "passed": False}]
    assert says(gate_on_acceptance, *accepted(criteria=failed)).startswith("decision: ")


def test_an_acceptance_by_the_vendor_is_refused(gate_on_acceptance: Any, accepted: Any) -> None:
    issuer = {"party": "vendor", "domain": "software-vendor"}
    tar, acceptance = accepted({"issuer": issuer}, signer="software-vendor")
    assert says(gate_on_acceptance, tar, acceptance) == (
        "signature: acceptance by software-vendor must be signed by mno-staging"
    )


def test_an_expired_acceptance_is_refused(gate_on_acceptance: Any, accepted: Any) -> None:
    assert says(gate_on_acceptance, *accepted({"valid_days": 1}), now=NOW + timedelta(days=2)).startswith("expiry: ")


def test_an_acceptance_for_another_domain_is_refused(gate_on_acceptance: Any, accepted: Any) -> None:
    assert says(gate_on_acceptance, *accepted({"audience": "mno-staging"})).startswith("audience: ")


def test_a_replayed_acceptance_is_refused(gate_on_acceptance: Any, accepted: Any, tmp_path: Path) -> None:
    record_sequence(
        tmp_path / "domain",
        issuer="mno-staging",
        line="acceptance/churn",
        sequence=2,
        statement_digest=sha256_bytes(b"newer"),
    )
    assert says(gate_on_acceptance, *accepted()).startswith("sequence: ")


def test_a_vendor_revoked_since_the_acceptance_is_refused(
    own_world: Any, gate_on_acceptance: Any, accepted: Any, tmp_path: Path
) -> None:
    pins = own_world.folder / "trust" / "software-vendor.json"
    pins.write_text(pins.read_text().replace('"revoked_at": null', '"revoked_at": "2026-11-23T11:00:00Z"'))
    assert says(gate_on_acceptance, *accepted(), trust=own_world.trust).startswith("revocation: statement evidence by")
    assert not (tmp_path / "gated").exists()


# An approval


@pytest.fixture
def approval(world: Any, example: Callable[[str], Any]) -> Callable[..., statements.Envelope]:
    """grace's approval of an acceptance; keywords change the body, `statement` the arguments of `make`."""

    def make(
        acceptance: statements.Envelope,
        statement: dict[str, Any] | None = None,
        signer: str = "grace",
        **body: Any,
    ) -> Any:
        verdict = statements.read(acceptance)
        body = example("approval")["body"] | {
            "acceptance_digest": statements.statement_digest(acceptance),
            "artifact_digest": verdict["body"]["artifact_digest"],
            **body,
        }
        arguments, subject = {"issued_at": NOW, **(statement or {})}, verdict["subject_digest"]
        made = world.statement("approval", "mno-staging", "mno-production", subject, body, **arguments)
        return world.sign(made, signer)

    return make


@pytest.fixture
def gate_on_approval(world: Any) -> Callable[..., Any]:
    def call(approval: statements.Envelope, acceptance: statements.Envelope, **changed: Any) -> Any:
        arguments: dict[str, Any] = {
            "approval": approval,
            "acceptance": acceptance,
            "trust": world.trust,
            "party": "operator",
            "workflow_id": "churn",
            "target_domain": "mno-production",
            "contract_digest": CONTRACT,
            "now": NOW,
        }
        return gate_approval(**{**arguments, **changed})

    return call


@pytest.fixture
def acceptance(accepted: Callable[..., Any]) -> statements.Envelope:
    envelope: statements.Envelope = accepted()[1]
    return envelope


def test_an_approval_by_another_person_than_the_proposer_passes(
    gate_on_approval: Any, approval: Any, acceptance: Any
) -> None:
    passed = names(gate_on_approval(approval(acceptance), acceptance))
    assert {"signature", "expiry", "approver", "acceptance", "artifact", "target"} <= passed


def test_the_proposer_cannot_approve(gate_on_approval: Any, approval: Any, acceptance: Any) -> None:
    own = approval(acceptance, signer="ada", person="ada")
    assert says(gate_on_approval, own, acceptance).startswith("approver: ada proposed this model")


def test_the_proposer_cannot_approve_under_another_name(
    world: Any, gate_on_approval: Any, approval: Any, accepted: Any
) -> None:
    proposer = {"person": "somebody", "key_id": person_key_id(world, "grace")}
    _, acceptance = accepted(proposer=proposer)
    assert says(gate_on_approval, approval(acceptance), acceptance).startswith("approver: grace proposed this model")


def test_the_proposer_cannot_approve_with_another_key(gate_on_approval: Any, approval: Any, accepted: Any) -> None:
    _, acceptance = accepted(proposer={"person": "grace", "key_id": sha256_bytes(b"an older key")})
    assert says(gate_on_approval, approval(acceptance), acceptance).startswith("approver: grace proposed this model")


def test_a_person_of_another_party_cannot_approve(gate_on_approval: Any, approval: Any, acceptance: Any) -> None:
    assert says(gate_on_approval, approval(acceptance), acceptance, party="vendor").startswith(
        "approver: grace is not of vendor"
    )


def test_an_approval_in_anothers_name_is_refused(gate_on_approval: Any, approval: Any, acceptance: Any) -> None:
    forged = approval(acceptance, signer="ada")
    assert "of grace is not pinned here" in says(gate_on_approval, forged, acceptance)


def test_an_approval_of_another_acceptance_is_refused(gate_on_approval: Any, approval: Any, acceptance: Any) -> None:
    other = approval(acceptance, acceptance_digest=sha256_bytes(b"other"))
    assert says(gate_on_approval, other, acceptance).startswith("acceptance: grace approved another acceptance")


def test_an_approval_of_another_artifact_is_refused(gate_on_approval: Any, approval: Any, acceptance: Any) -> None:
    other = approval(acceptance, artifact_digest=sha256_bytes(b"other"))
    assert says(gate_on_approval, other, acceptance).startswith("artifact: grace approved another artifact")


def test_an_approval_of_other_content_is_refused(gate_on_approval: Any, approval: Any, acceptance: Any) -> None:
    other = approval(acceptance, {"subject_digest": sha256_bytes(b"other")})
    assert says(gate_on_approval, other, acceptance).startswith("artifact: grace approved another artifact")


def test_an_approval_for_another_domain_is_refused(gate_on_approval: Any, approval: Any, acceptance: Any) -> None:
    assert says(gate_on_approval, approval(acceptance, target_domain="mno-staging"), acceptance).startswith("target: ")
    assert says(gate_on_approval, approval(acceptance, {"audience": "mno-staging"}), acceptance).startswith(
        "audience: "
    )


def test_an_expired_approval_is_refused(gate_on_approval: Any, approval: Any, acceptance: Any) -> None:
    short = approval(acceptance, {"valid_days": 1})
    assert says(gate_on_approval, short, acceptance, now=NOW + timedelta(days=2)).startswith(
        "expiry: approval by grace"
    )


def test_what_is_no_approval_is_refused(gate_on_approval: Any, acceptance: Any) -> None:
    assert says(gate_on_approval, acceptance, acceptance) == "statement: expected approval, got acceptance"


def test_an_approval_digest_is_not_an_approval(gate_on_approval: Any, acceptance: Any) -> None:
    assert says(gate_on_approval, {"digest": digest_of(acceptance)}, acceptance).startswith("statement: ")
