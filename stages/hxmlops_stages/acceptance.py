"""Acceptance: the acceptor's signed verdict on a model that passed the gate and was tested on hidden rows.

Reads criteria.json (gate; or the report.json of a gate that refused), report.json (testing, of a model that came so
far) and protection.dsse.json (of the hidden rows); leaves acceptance.dsse.json. The statement says pass or fail by
criterion and no figure: from figures a vendor could learn the hidden rows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hxmlops_evidence.digests import digest_of, sha256_file
from hxmlops_evidence.errors import BadInput
from hxmlops_evidence.files import write_private
from hxmlops_evidence.gates import line
from hxmlops_evidence.keys import key_id, load_signing_key
from hxmlops_evidence.sequences import next_sequence
from hxmlops_stages.program import Context, Outcome
from hxmlops_stages.signing import issue, read_json, relied_on, write_envelope

type Verdict = dict[str, Any]

_EVALUATOR = ("acceptance.py", "examples.py", "inference.py", "metrics.py", "testing.py")


def run(context: Context) -> Outcome:
    """Done whether accepted or rejected. A model that was judged before under the same conditions keeps its verdict."""
    parameters, workflow = context.parameters, context.workflow
    gate, tested = read_json(context.input / "criteria.json"), context.input / "report.json"
    hidden = relied_on(context, read_json(context.input / "protection.dsse.json"), "protection", workflow["owner"])
    model, proposer = gate["model"], _proposer(context)
    conditions = {
        "thresholds_digest": digest_of({name: parameters[name] for name in ("thresholds", "latency_ms_p95")}),
        "policy_digest": digest_of(parameters["policy"]),
        "evaluator_digest": digest_of({name: sha256_file(Path(__file__).parent / name) for name in _EVALUATOR}),
    }
    refused = any(not each["passed"] for each in gate["criteria"])
    measured = {} if refused else _measured(read_json(tested), parameters)
    criteria = gate["criteria"] + [{"criterion": name, "passed": m["passed"]} for name, m in measured.items()]
    verdict = _recorded(
        context.domain / "attempts.json",
        hidden.statement["subject_digest"],
        model["vendor_key_id"],
        model["model_digest"],
        {
            **conditions,
            "decision": "accepted" if all(each["passed"] for each in criteria) else "rejected",
            "criteria": criteria,
        },
        refused=refused,
    )
    acceptance = issue(
        context,
        "acceptance",
        audience=workflow["server"],
        subject_digest=model["model_digest"],
        inputs={
            "evidence.dsse.json": model["evidence_digest"],
            "model.tar": model["artifact_digest"],
            "protection.dsse.json": hidden.digest,
            **({} if refused else {"report.json": sha256_file(tested)}),
        },
        sequence=next_sequence(context.domain, line("acceptance", context.workflow["id"])),
        body={
            **verdict,
            **{name: model[name] for name in ("name", "version", "artifact_digest", "vendor", "recipe_digest")},
            "hidden": {
                "statement_digest": hidden.digest,
                "plaintext_digest": hidden.statement["subject_digest"],
            },
            "proposer": proposer,
            "stages": context.stages_so_far,
        },
    )
    write_envelope(context.output / "acceptance.dsse.json", acceptance.envelope)
    failed = [each["criterion"] for each in verdict["criteria"] if not each["passed"]]
    why = "; ".join(_missed(name, measured.get(name, {})) for name in failed)
    return Outcome(
        f"{model['name']} {model['version']} {verdict['decision']}" + (f": {why}" if why else ""),
        metrics={"attempt": verdict["attempt"], "failed": failed, "measured": measured},
        valid_until=acceptance.statement["expires_at"],
        facts={"hxmlops_decision": verdict["decision"]},
    )


def _measured(report: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
    """Figures beside their limits; for this domain's eyes only."""
    from hxmlops_stages.metrics import meets

    measured: dict[str, Any] = {}
    for name, threshold in parameters["thresholds"].items():
        if name not in report["metrics"]:
            known = ", ".join(report["metrics"])
            raise BadInput(f"thresholds.{name}: not a metric of the contract; it has {known}")
        bounds = report["metrics"][name]
        measured[name] = {**bounds, "threshold": threshold, "passed": meets(name, bounds, threshold)}
    latency, limit = report["latency_ms"]["p95"], parameters["latency_ms_p95"]
    if limit is not None:
        measured["latency"] = {"p95_ms": latency, "limit_ms": limit, "passed": latency <= limit}
    return measured


def _missed(criterion: str, measured: dict[str, Any]) -> str:
    """A criterion that was not met, with its figures: these are for this domain, the statement has none."""
    if "threshold" in measured:
        bounds = f"{measured['value']:.3f} ({measured['lower']:.3f} to {measured['upper']:.3f})"
        return f"{criterion} {bounds} does not surely reach the threshold {measured['threshold']}"
    if "limit_ms" in measured:
        return f"{criterion} p95 {measured['p95_ms']:.2f} ms is over {measured['limit_ms']} ms"
    return criterion


def _recorded(file: Path, hidden: str, vendor_key: str, model: str, verdict: Verdict, *, refused: bool) -> Verdict:
    """The verdict with its number of attempt, or the one recorded for this model under the same conditions.

    Attempts are counted by hidden rows and vendor key; the same model again is the same attempt.
    """
    attempts: dict[str, Any] = read_json(file) if file.exists() else {}
    models: dict[str, list[Verdict]] = attempts.setdefault(hidden, {}).setdefault(vendor_key, {})
    earlier = models.setdefault(model, [])
    numbered = {**verdict, "attempt": earlier[0]["attempt"] if earlier else len(models)}
    if refused:  # a gate's no holds now, whatever was said before; it saw no hidden row, so it is no attempt
        return numbered
    conditions = {name for name in verdict if name.endswith("_digest")}
    for known in earlier:
        if all(known[name] == verdict[name] for name in conditions):
            return known
    earlier.append(numbered)
    write_private(file, json.dumps(attempts, indent=1).encode() + b"\n")
    return numbered


def _proposer(context: Context) -> dict[str, str]:
    person = context.parameters["person"]
    key = load_signing_key(context.domain / "people" / f"{person}.pem")
    return {"person": person, "key_id": key_id(key.public_key())}
