"""Approval: a person lets an accepted model into a domain, by a statement signed with the person's own key.

Reads acceptance.dsse.json; leaves approval.dsse.json, and keeps it in `<domain>/approvals/`, where gates look for it.
"""

from __future__ import annotations

from pathlib import Path

from hxmlops_evidence import statements
from hxmlops_evidence.digests import canonical
from hxmlops_evidence.errors import Refused
from hxmlops_evidence.files import write_private
from hxmlops_evidence.gates import line
from hxmlops_evidence.keys import key_id, load_signing_key
from hxmlops_evidence.sequences import next_sequence
from hxmlops_evidence.trust import Trust
from hxmlops_stages.program import Context, Outcome
from hxmlops_stages.signing import Signed, issue, read_json, relied_on, write_envelope


def run(context: Context) -> Outcome:
    """Refused for a rejected model, another domain's acceptance, and the person who proposed the model."""
    person, target = context.parameters["person"], context.parameters["target_domain"]
    envelope = read_json(context.input / "acceptance.dsse.json")
    acceptance = relied_on(context, envelope, "acceptance", context.workflow["acceptor"])
    verdict = acceptance.statement["body"]
    model = f"{verdict['name']} {verdict['version']}"
    if verdict["decision"] != "accepted":
        raise Refused("decision", f"{model} was {verdict['decision']}; only an accepted model can be approved")
    key_file = context.domain / "people" / f"{person}.pem"
    proposer, own_key = verdict["proposer"], key_id(load_signing_key(key_file).public_key())
    if person == proposer["person"] or own_key == proposer["key_id"]:
        raise Refused("approver", f"{person} proposed {model}; another person must approve it")

    kept = approvals(context.domain, acceptance.digest) / f"{person}.dsse.json"
    approval = _still_valid(context, kept)
    changed = approval is None
    if approval is None:
        approval = issue(
            context,
            "approval",
            audience=target,
            subject_digest=acceptance.statement["subject_digest"],
            inputs={"acceptance.dsse.json": acceptance.digest},
            sequence=next_sequence(context.domain, f"{line('approval', context.workflow['id'])}/{person}"),
            body={
                "acceptance_digest": acceptance.digest,
                "artifact_digest": verdict["artifact_digest"],
                "target_domain": target,
                "person": person,
            },
            key=key_file,
        )
        _verify(context, approval.envelope)
        write_private(kept, canonical(approval.envelope))
    write_envelope(context.output / "approval.dsse.json", approval.envelope)
    return Outcome(
        f"{person} approves {model} for {target}",
        metrics={"model": model, "artifact_digest": verdict["artifact_digest"], "person": person},
        changed=changed,
        valid_until=approval.statement["expires_at"],
        facts={"hxmlops_approval": approval.digest},
    )


def approvals(domain: Path, acceptance_digest: str) -> Path:
    """Folder of the approvals of one acceptance, one file a person."""
    return domain / "approvals" / acceptance_digest.removeprefix("sha256:")


def _still_valid(context: Context, kept: Path) -> Signed | None:
    if not kept.exists():
        return None
    envelope = read_json(kept)
    try:
        return Signed(_verify(context, envelope), envelope, statements.statement_digest(envelope))
    except Refused:
        return None


def _verify(context: Context, envelope: statements.Envelope) -> statements.Statement:
    """As the target's gate will. Refused when the person's key is not pinned."""
    return statements.verify(
        envelope,
        Trust(context.domain / "trust"),
        type_="approval",
        issuer=context.parameters["person"],
        workflow_id=context.workflow["id"],
        audience=context.parameters["target_domain"],
        contract_digest=context.contract_digest,
    )
