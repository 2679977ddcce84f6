"""Gate: what must hold before a model is loaded here. It is checked at every run, whatever was checked before.

Kind `model`, the acceptor's gate on a vendor's model, reads model.tar, evidence.dsse.json (the catalogue's) and
protection.dsse.json (of the hidden rows on which it will be tested). Kind `promotion`, the server's gate on an accepted
model, reads model.tar, acceptance.dsse.json and recipe.json, and looks for an approval in `<domain>/approvals/`. Both
leave model/ (unpacked) and criteria.json; promotion adds its two statements to model/, and leaves recipe.json.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hxmlops_evidence import gates
from hxmlops_evidence.digests import digest_of, sha256_file
from hxmlops_evidence.errors import Refused
from hxmlops_evidence.gates import Criteria
from hxmlops_evidence.sequences import record_sequence
from hxmlops_evidence.statements import Envelope, read, statement_digest
from hxmlops_evidence.trust import Trust
from hxmlops_stages.approval import approvals
from hxmlops_stages.energy import estimate
from hxmlops_stages.program import Context, Outcome
from hxmlops_stages.signing import read_json, relied_on, write_envelope, write_json


def run(context: Context) -> Outcome:
    """Refused with the first criterion that does not hold; the sequence is recorded only when all do."""
    kinds = {"model": _model, "promotion": _promotion}
    return kinds[context.parameters["kind"]](context)


def _model(context: Context) -> Outcome:
    evidence = read_json(context.input / "evidence.dsse.json")
    try:
        criteria = _checked(context, evidence)
    except Refused as problem:
        _leave_verdict(context, evidence, problem)
        raise
    return _passed(context, evidence, _named(context, evidence), criteria)


def _checked(context: Context, evidence: Envelope) -> Criteria:
    """The criteria that a vendor's model has passed: all. Refused with the first that it has not."""
    workflow, policy = context.workflow, context.parameters["policy"]
    criteria = gates.gate_model(
        tar=context.input / "model.tar",
        folder=context.output / "model",
        evidence=evidence,
        trust=Trust(context.domain / "trust"),
        domain=context.domain,
        vendor=workflow["vendor"],
        workflow_id=workflow["id"],
        audience=context.domain_name,
        contract_digest=context.contract_digest,
        metrics=context.contract["model"]["metrics"],
        format_policy=policy["format_policy"],
        energy_budget_j=policy["energy_budget_j"],
        energy_j_upper=recomputed_j_upper,
    )
    body = read(evidence)["body"]
    hidden = relied_on(context, read_json(context.input / "protection.dsse.json"), "protection", workflow["owner"])
    if body["dataset"]["recipe_digest"] != hidden.statement["body"]["recipe_digest"]:
        raise Refused(
            "recipe",
            f"{body['name']} {body['version']} was trained on a release made by another recipe than the hidden rows; "
            f"{workflow['vendor']} must build on the newest release",
        )
    return [*criteria, {"criterion": "recipe", "passed": True}]


def _leave_verdict(context: Context, evidence: Envelope, refusal: Refused) -> None:
    """report.json, in the form of criteria.json, of what was refused: the acceptance stage makes it the vendor's
    verdict. Nothing is left when the evidence itself does not verify: then nobody has asked.
    """
    with suppress(Refused):
        relied_on(context, evidence, "evidence", context.workflow["vendor"])
        criteria = [{"criterion": refusal.criterion, "passed": False}]
        write_json(context.output / "report.json", {"model": _named(context, evidence), "criteria": criteria})


def _named(context: Context, evidence: Envelope) -> dict[str, str]:
    """The model that verified evidence speaks of, as the acceptance names it."""
    statement = read(evidence)
    body = statement["body"]
    return {
        "name": body["name"],
        "version": body["version"],
        "artifact_digest": sha256_file(context.input / "model.tar"),
        "model_digest": statement["subject_digest"],
        "evidence_digest": statement_digest(evidence),
        "recipe_digest": body["dataset"]["recipe_digest"],
        "vendor": context.workflow["vendor"],
        "vendor_key_id": statement["issuer"]["key_id"],
    }


def _promotion(context: Context) -> Outcome:
    workflow = context.workflow
    acceptance = read_json(context.input / "acceptance.dsse.json")
    trust = Trust(context.domain / "trust")
    criteria = gates.gate_acceptance(
        tar=context.input / "model.tar",
        folder=context.output / "model",
        acceptance=acceptance,
        trust=trust,
        domain=context.domain,
        acceptor=workflow["acceptor"],
        vendor=workflow["vendor"],
        workflow_id=workflow["id"],
        audience=context.domain_name,
        contract_digest=context.contract_digest,
    )
    statement = read(acceptance)
    body = statement["body"]
    criteria += _approval(context, acceptance, trust)
    recipe = read_json(context.input / "recipe.json")
    if digest_of(recipe) != body["recipe_digest"]:
        raise Refused(
            "recipe", f"recipe.json is not the one of {body['name']} {body['version']}: fetch the model again"
        )
    shutil.copyfile(context.input / "recipe.json", context.output / "recipe.json")
    # the model server verifies these two again beside the model
    shutil.copyfile(context.output / "model" / gates.EVIDENCE, context.output / "model" / "evidence.dsse.json")
    write_envelope(context.output / "model" / "acceptance.dsse.json", acceptance)
    shutil.copyfile(context.output / "model" / gates.EVIDENCE, context.output / "model" / "evidence.dsse.json")
    write_envelope(context.output / "model" / "acceptance.dsse.json", acceptance)
    model = {
        "name": body["name"],
        "version": body["version"],
        "artifact_digest": body["artifact_digest"],
        "model_digest": statement["subject_digest"],
        "acceptance_digest": statement_digest(acceptance),
        "recipe_digest": body["recipe_digest"],
        "vendor": body["vendor"],
    }
    return _passed(context, acceptance, model, [*criteria, {"criterion": "recipe", "passed": True}])


def _approval(context: Context, acceptance: Envelope, trust: Trust) -> Criteria:
    """Of the approvals kept for this acceptance one must pass. Refused with the last one's reason, or as missing."""
    body = read(acceptance)["body"]
    refusal = Refused(
        "approval",
        f"no approval of {body['name']} {body['version']} for {context.domain_name}: a person other than "
        f"{body['proposer']['person']} runs `ansible-playbook playbooks/approve_model.yml -e hxmlops_approver=NAME`",
    )
    for file in sorted(approvals(context.domain, statement_digest(acceptance)).glob("*.dsse.json")):
        try:
            return gates.gate_approval(
                approval=read_json(file),
                acceptance=acceptance,
                trust=trust,
                party=context.party,
                workflow_id=context.workflow["id"],
                target_domain=context.domain_name,
                contract_digest=context.contract_digest,
            )
        except Refused as problem:
            refusal = problem
    raise refusal


def recomputed_j_upper(record: Mapping[str, Any]) -> float:
    """Upper bound of an attempt's energy in J, from its raw counters by this domain's own coefficients."""
    return estimate(record["cpu_s"], record["wall_s"], record["vcpu"], record["memory_gb"]).upper


def _passed(context: Context, envelope: Envelope, model: dict[str, str], criteria: Criteria) -> Outcome:
    statement = read(envelope)
    sequences = context.domain / "sequences.json"
    before = _content(sequences)
    record_sequence(
        context.domain,
        issuer=statement["issuer"]["domain"],
        line=gates.line(statement["type"], statement["workflow_id"]),
        sequence=statement["sequence"],
        statement_digest=statement_digest(envelope),
    )
    criteria = list({each["criterion"]: each for each in criteria}.values())
    write_json(context.output / "criteria.json", {"model": model, "criteria": criteria})
    return Outcome(
        f"{model['name']} {model['version']} passed {len(criteria)} criteria",
        metrics={"criteria": criteria, "model": model},
        changed=_content(sequences) != before,
        valid_until=statement["expires_at"],
        facts={"hxmlops_model": model["artifact_digest"]},
    )


def _content(file: Path) -> bytes:
    return file.read_bytes() if file.exists() else b""
