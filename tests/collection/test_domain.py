"""A domain's records: who works in it, and what its stages used."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._domain import Busy, Domain, alive, started_at


@pytest.fixture
def domain(tmp_path: Path) -> Domain:
    return Domain(tmp_path / "mno-staging", "mno-staging")


def result(stage: str, attempt: str, status: str = "done", changed: bool = True) -> dict[str, Any]:
    energy = {"attempt_id": attempt, "stage": stage, "energy_j": 1.0}
    return {"stage": stage, "status": status, "changed": changed, "run_id": "r", "energy": energy}


def test_one_process_keeps_its_run(domain: Domain) -> None:
    first = domain.claim(os.getpid(), write=True)
    assert domain.claim(os.getpid(), write=True) == first


def test_a_second_live_process_is_told_who_works_there(domain: Domain) -> None:
    domain.claim(os.getpid(), write=True)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        with pytest.raises(Busy, match=rf"another run works in domain mno-staging since .* \(process {os.getpid()}"):
            domain.claim(other.pid, write=True)
        other.communicate(b"\n")


def test_a_dead_owner_is_succeeded(domain: Domain) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        first = domain.claim(other.pid, write=True)
        other.communicate(b"\n")
    assert domain.claim(os.getpid(), write=True) != first


def test_a_reused_process_id_is_not_taken_for_the_owner() -> None:
    assert alive({"pid": os.getpid(), "started_at": started_at(os.getpid())})
    assert not alive({"pid": os.getpid(), "started_at": 1})


def test_check_mode_claims_nothing(domain: Domain) -> None:
    assert domain.claim(os.getpid(), write=False) == "check"
    assert not domain.folder.exists()


def test_a_result_is_recorded_once(domain: Domain) -> None:
    for _ in range(2):
        domain.record(result("training", "a1"), workflow="churn", step="s")
    assert [entry["energy"]["attempt_id"] for entry in domain.records()] == ["a1"]
    assert stat.S_IMODE((domain.folder / "ledger.jsonl").stat().st_mode) == 0o600


def test_a_line_cut_off_by_a_crash_is_left_out(domain: Domain) -> None:
    domain.record(result("training", "a1"), workflow="churn", step="s")
    with (domain.folder / "ledger.jsonl").open("a") as ledger:
        ledger.write('{"workflow": "chu')
    assert len(domain.records()) == 1


def test_failed_attempts_count_and_a_skipped_stage_keeps_its_joules(domain: Domain) -> None:
    for stage, attempt, status in (
        ("data_validation", "v1", "done"),
        ("training", "t1", "failed"),
        ("training", "t2", "done"),
        ("evidence", "e1", "done"),
        ("training", "t3", "done"),
    ):
        domain.record(result(stage, attempt, status), workflow="churn", step=stage)
    attempts = [e["attempt_id"] for e in domain.energy_since("evidence", "churn", ["data_validation", "training"])]
    assert attempts == ["v1", "t3"], "validation was skipped since; the first training is declared already"


def test_before_the_first_statement_every_attempt_counts(domain: Domain) -> None:
    domain.record(result("training", "t1", "refused"), workflow="churn", step="s")
    domain.record(result("training", "t2"), workflow="churn", step="s")
    domain.record(result("training", "x1"), workflow="another", step="s")
    attempts = [e["attempt_id"] for e in domain.energy_since("evidence", "churn", ["training"])]
    assert attempts == ["t1", "t2"]


def test_a_report_shows_the_last_success_of_each_step_and_the_failures_around_it(domain: Domain) -> None:
    for step, attempt, status in (
        ("training", "t1", "done"),
        ("training", "t2", "failed"),
        ("publish verdict", "p1", "done"),
        ("training", "t3", "done"),
        ("publish accepted", "p2", "done"),
        ("training", "t4", "refused"),
    ):
        domain.record(result(step.split()[0], attempt, status), workflow="churn", step=step)
    assert [record["attempt_id"] for record in domain.latest("churn")] == ["t2", "p1", "t3", "p2", "t4"]


def test_a_check_repeated_with_the_same_outcome_is_left_out(domain: Domain) -> None:
    domain.record(result("gate", "g1"), workflow="churn", step="s")
    domain.record(result("gate", "g2", changed=False), workflow="churn", step="s")
    assert [entry["energy"]["attempt_id"] for entry in domain.ledger("churn")] == ["g1"]


def test_statements_and_criteria_are_kept_by_what_they_are(domain: Domain, tmp_path: Path) -> None:
    statement = {"type": "protection", "body": {"role": "hidden"}}
    envelope = {"payload": base64.b64encode(json.dumps(statement).encode()).decode()}
    (tmp_path / "out" / "hidden").mkdir(parents=True)
    (tmp_path / "out" / "hidden" / "protection.dsse.json").write_text(json.dumps(envelope))
    (tmp_path / "out" / "criteria.json").write_text("[]")
    domain.keep_papers("churn", "gate model", tmp_path / "out")
    kept = domain.folder / "papers" / "churn" / "statements" / "protection-hidden.dsse.json"
    assert json.loads(kept.read_text()) == envelope
    assert (domain.folder / "papers" / "churn" / "gates" / "gate model.json").exists()
