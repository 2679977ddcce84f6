"""The acceptor's verdict: on hidden rows, against its own thresholds, told by criterion without a figure."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hxmlops_evidence import keys
from hxmlops_evidence.digests import digest_of
from hxmlops_evidence.statements import read, statement_digest

from .samples import TESTED, energy_record
from .worlds import POLICY, Accepted, Ran, done


def report_of(lower: float, latency_ms: float = 0.5) -> dict[str, Any]:
    """A testing report on hidden rows."""
    bounds = {"value": lower + 0.02, "lower": lower, "upper": lower + 0.04}
    return TESTED | {"metrics": {"roc_auc": bounds}, "latency_ms": {"p50": 0.2, "p95": latency_ms, "calls": 1000}}


def verdict_of(ran: Ran) -> dict[str, Any]:
    return dict(read(ran.read("acceptance.dsse.json"))["body"])


def judged(verdict: dict[str, Any]) -> dict[str, bool]:
    return {each["criterion"]: each["passed"] for each in verdict["criteria"]}


def test_an_accepted_model(accepted: Accepted) -> None:
    verdict, statement = verdict_of(accepted.acceptance), read(accepted.acceptance.read("acceptance.dsse.json"))

    assert (verdict["decision"], verdict["attempt"]) == ("accepted", 1)
    assert judged(verdict).keys() >= {"signature", "members", "energy_budget", "roc_auc", "latency"}
    assert (statement["audience"], verdict["vendor"]) == ("mno-production", "software-vendor")
    assert accepted.acceptance.result["facts"] == {"hxmlops_decision": "accepted"}
    assert accepted.acceptance.result["valid_until"] == statement["expires_at"]


def test_it_binds_model_hidden_rows_conditions_and_proposer(accepted: Accepted) -> None:
    statement = read(accepted.acceptance.read("acceptance.dsse.json"))
    body, model = statement["body"], accepted.gate.read("criteria.json")["model"]

    hidden = json.loads(accepted.hidden.read_bytes())
    person = keys.load_signing_key(accepted.world.staging.folder / "people" / "ada.pem")
    assert (body["artifact_digest"], statement["subject_digest"]) == (model["artifact_digest"], model["model_digest"])
    assert body["hidden"] == {
        "statement_digest": statement_digest(hidden),
        "plaintext_digest": read(hidden)["subject_digest"],
    }
    assert body["thresholds_digest"] == digest_of({"thresholds": {"roc_auc": 0.85}, "latency_ms_p95": 20})
    assert body["policy_digest"] == digest_of(POLICY)
    assert body["proposer"] == {"person": "ada", "key_id": keys.key_id(person.public_key())}
    assert statement["inputs"]["evidence.dsse.json"] == model["evidence_digest"]


def test_what_the_gate_refused_becomes_a_verdict_too(accepted: Accepted) -> None:
    world = accepted.world
    refused = world.gate_model(accepted.tar, accepted.evidence, accepted.hidden, energy_budget_j=0.001)
    assert refused.result["criterion"] == "energy_budget"
    (refused.output / "report.json").rename(refused.output / "criteria.json")

    verdict = verdict_of(done(world.accept(refused, accepted.hidden, None)))

    assert verdict["decision"] == "rejected"
    assert judged(verdict) == {"energy_budget": False}


def test_below_the_threshold_here_although_the_vendors_own_was_over(accepted: Accepted) -> None:
    ran = done(accepted.world.accept(accepted.gate, accepted.hidden, report_of(0.84), thresholds={"roc_auc": 0.86}))

    assert TESTED["metrics"]["roc_auc"]["lower"] > 0.86  # what the vendor's evidence says
    assert verdict_of(ran)["decision"] == "rejected"
    assert [name for name, passed in judged(verdict_of(ran)).items() if not passed] == ["roc_auc"]
    assert ran.result["facts"] == {"hxmlops_decision": "rejected"}
    assert "rejected: roc_auc 0." in ran.result["summary"]
    assert "does not surely reach the threshold" in ran.result["summary"]


def test_the_lower_bound_counts_not_the_value(accepted: Accepted) -> None:
    ran = done(accepted.world.accept(accepted.gate, accepted.hidden, report_of(0.90), thresholds={"roc_auc": 0.91}))

    assert ran.result["metrics"]["measured"]["roc_auc"]["value"] > 0.91
    assert verdict_of(ran)["decision"] == "rejected"


def test_too_slow_a_model_is_rejected(accepted: Accepted) -> None:
    ran = done(accepted.world.accept(accepted.gate, accepted.hidden, report_of(0.9, latency_ms=21), **NEW))

    assert [name for name, passed in judged(verdict_of(ran)).items() if not passed] == ["latency"]


NEW: dict[str, Any] = {"latency_ms_p95": 20.5}
"""Conditions under which nothing was judged yet."""


def test_no_figure_leaves_the_domain(accepted: Accepted) -> None:
    ran = done(accepted.world.accept(accepted.gate, accepted.hidden, report_of(lower=0.8765), **NEW))

    assert "0.8765" not in json.dumps(read(ran.read("acceptance.dsse.json")))
    assert ran.result["metrics"]["measured"]["roc_auc"]["lower"] == 0.8765  # for the operator's own eyes


def test_the_same_model_gets_the_recorded_verdict(accepted: Accepted) -> None:
    """Another draw of luck in testing changes nothing."""
    ran = done(accepted.world.accept(accepted.gate, accepted.hidden, report_of(lower=0.5), valid_days=31))

    assert (verdict_of(ran)["decision"], verdict_of(ran)["attempt"]) == ("accepted", 1)


def test_under_changed_thresholds_the_same_model_is_judged_anew_as_the_same_attempt(accepted: Accepted) -> None:
    ran = done(accepted.world.accept(accepted.gate, accepted.hidden, thresholds={"roc_auc": 0.95}))

    assert (verdict_of(ran)["decision"], verdict_of(ran)["attempt"]) == ("rejected", 1)


def test_another_model_on_the_same_hidden_rows_is_the_next_attempt(accepted: Accepted) -> None:
    model = accepted.world.folder / "made" / "model"
    (model / "notes.txt").write_text("depth 4")
    signed = done(accepted.world.sign_model(accepted.protection)).output
    gate = done(accepted.world.gate_model(signed / "model.tar", signed / "evidence.dsse.json", accepted.hidden))

    ran = done(accepted.world.accept(gate, accepted.hidden))

    assert verdict_of(ran)["attempt"] == 2


def test_other_hidden_rows_are_counted_apart(accepted: Accepted) -> None:
    hidden = accepted.world.folder / "released" / "hidden.parquet"
    hidden.write_bytes((accepted.world.folder / "released" / "training.parquet").read_bytes())
    newer = done(accepted.world.encrypt(records=[energy_record("encryption")])).output / "hidden"

    ran = done(accepted.world.accept(accepted.gate, newer / "protection.dsse.json"))

    assert verdict_of(ran)["attempt"] == 1


def test_a_threshold_for_a_metric_that_the_contract_lacks(accepted: Accepted) -> None:
    ran = accepted.world.accept(accepted.gate, accepted.hidden, thresholds={"roc_auk": 0.9})

    assert (ran.code, ran.result["status"]) == (3, "bad_input")
    assert ran.reason == "thresholds.roc_auk: not a metric of the contract; it has roc_auc"


def test_without_the_proposers_key_nobody_proposes(accepted: Accepted) -> None:
    ran = accepted.world.accept(accepted.gate, accepted.hidden, person="mallory")

    assert (ran.code, ran.result["status"]) == (3, "bad_input")
    assert "people/mallory.pem: no such key" in ran.reason
    assert done(accepted.world.accept(accepted.gate, accepted.hidden)).result["metrics"]["attempt"] == 1


@pytest.mark.parametrize("name", ["criteria", "protection.dsse"])
def test_a_missing_input_is_named(accepted: Accepted, name: str) -> None:
    parameters = json.loads((accepted.acceptance.output.parent / "spec.json").read_text())["parameters"]
    inputs = {
        path.name: path
        for path in (accepted.gate.output / "criteria.json", accepted.world.folder / "tested.json", accepted.hidden)
    }
    inputs["report.json"] = inputs.pop("tested.json")
    del inputs[f"{name}.json"]

    ran = accepted.world.staging.run("acceptance", parameters, inputs)

    assert (ran.code, ran.reason) == (3, f"input {name}.json: no such file")
