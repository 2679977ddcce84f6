"""The churn workflow end to end on the embedded default, told in the order in which a user would meet it.

One lab for all tests here: each goes on from where the last one left it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import stat
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pyrage
import pytest

from tests.embedded.lab import DOMAINS, PROJECT, Lab, ask, laboratory

GATES = {"fetch", "gate", "promotion"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with laboratory(tmp_path_factory.mktemp("workflow")) as made:
        yield made


def tree(folder: Path) -> dict[str, str]:
    skipped = {".git", ".venv", ".venv-anonymity", ".uv", ".hxmlops", "__pycache__", ".mypy_cache", ".ruff_cache"}
    skipped |= {".pytest_cache", ".hypothesis", ".ansible"}
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not skipped & set(path.relative_to(folder).parts)
    }


def sha256(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def statement(lab: Lab, domain: str, name: str) -> dict[str, Any]:
    file = lab.state(domain) / "papers" / lab.identifier / "statements" / f"{name}.dsse.json"
    decoded: dict[str, Any] = json.loads(base64.b64decode(json.loads(file.read_text())["payload"]))
    return decoded


def served(lab: Lab) -> dict[str, Any]:
    serving = json.loads((lab.state("mno-production") / "serving" / "serving.json").read_text())
    model: dict[str, Any] = serving["models"][lab.identifier]
    return model


def test_check_mode_on_an_empty_machine_lists_everything_and_writes_nothing(lab: Lab) -> None:
    project = tree(PROJECT)
    played = lab.play("workflow", "--check").succeeded()
    assert not lab.home.exists()
    assert tree(PROJECT) == project
    for stage in ("data_validation", "anonymization", "encryption", "publish", "fetch", "training", "testing",
                  "evidence", "gate", "acceptance", "promotion", "report"):  # fmt: skip
        assert f"{stage}: would run" in played.output


def test_the_whole_workflow_runs(lab: Lab) -> None:
    played = lab.play().succeeded()
    assert set(played.hosts) == set(DOMAINS)
    assert served(lab)["current"] == "1.0.1"


def test_the_vendor_gets_what_the_owner_released_and_no_more(lab: Lab) -> None:
    released = lab.output("mno-production", "anonymization") / "training.parquet"
    got = lab.output("software-vendor", "fetch") / "dataset" / "data.parquet"
    assert sha256(got) == sha256(released), "decrypted bytes are the released bytes"
    columns = pq.read_table(got).column_names
    assert "subscriber_id" not in columns
    assert "total_day_charge" not in columns
    raw = (lab.use_case / "data" / "mlc_churn.csv").read_bytes()
    assert all(raw not in file.read_bytes() for file in lab.state("software-vendor").rglob("*") if file.is_file())


def test_the_dataset_in_the_api_is_encrypted_to_the_vendor(lab: Lab) -> None:
    url, token = f"http://127.0.0.1:{lab.port}", lab.token("software-vendor", "mno-production")
    record = ask(f"{url}/api/v1/dataset_catalog?tag={lab.identifier}&name={lab.identifier}", token=token)["datasets"][0]
    ciphertext = lab.output("mno-production", "encryption") / "training" / "dataset.age"
    assert record["datasetSha256"] == sha256(ciphertext)
    identity = (lab.state("software-vendor") / "keys" / "encryption.age").read_text().strip().splitlines()[-1]
    plain = pyrage.decrypt(ciphertext.read_bytes(), [pyrage.x25519.Identity.from_str(identity)])
    assert hashlib.sha256(plain).hexdigest() == sha256(
        lab.output("mno-production", "anonymization") / "training.parquet"
    ).removeprefix("sha256:")
    other = (lab.state("mno-staging") / "keys" / "encryption.age").read_text().strip().splitlines()[-1]
    with pytest.raises(pyrage.DecryptError):
        pyrage.decrypt(ciphertext.read_bytes(), [pyrage.x25519.Identity.from_str(other)])


def test_hidden_and_released_subjects_are_apart(lab: Lab) -> None:
    output = lab.output("mno-production", "anonymization")
    hidden = pq.read_table(output / "hidden.parquet").num_rows
    released = pq.read_table(output / "training.parquet").num_rows
    report = json.loads((output / "report.json").read_text())
    assert hidden + released <= 5000
    assert 800 < hidden < 1200
    assert report["training"]["report"]["k"]["reached"] >= 5


def test_digests_chain_from_raw_data_to_the_served_model(lab: Lab) -> None:
    protection = statement(lab, "mno-production", "protection-training")
    evidence = statement(lab, "mno-production", "evidence")
    acceptance = statement(lab, "mno-production", "acceptance")
    approval = statement(lab, "mno-production", "approval")
    version = served(lab)["versions"]["1.0.1"]
    folder = lab.state("mno-production") / "serving" / version["folder"]
    raw = sha256(lab.use_case / "data" / "mlc_churn.csv")
    assert raw in lab.stages("mno-production", "data_validation")[0]["inputs"].values()
    assert evidence["body"]["dataset"]["ciphertext_digest"] == protection["body"]["ciphertext_digest"]
    assert acceptance["subject_digest"] == evidence["subject_digest"]
    assert approval["body"]["artifact_digest"] == acceptance["body"]["artifact_digest"]
    assert evidence["body"]["files"]["model.onnx"] == sha256(folder / "model.onnx")
    tar = next((lab.state("mno-staging") / "artifacts").rglob(acceptance["body"]["artifact_digest"][7:]))
    assert sha256(tar) == acceptance["body"]["artifact_digest"]
    assert {s["contract_digest"] for s in (protection, evidence, acceptance, approval)} == {
        protection["contract_digest"]
    }


def test_the_verdict_tells_pass_or_fail_and_no_value(lab: Lab) -> None:
    token = lab.token("software-vendor", "software-vendor")
    url = f"http://127.0.0.1:{lab.port + 1}/api/v1/model_catalog?status=staging"
    records = [
        record
        for status in ("staging", "production", "training")
        for record in _catalog(url.replace("status=staging", f"status={status}"), token)
    ]
    envelope = records[0]["characteristics"]["acceptance"]
    verdict = json.loads(base64.b64decode(envelope["payload"]))["body"]
    assert verdict["decision"] == "accepted"
    assert {"criterion": "roc_auc", "passed": True} in verdict["criteria"]
    assert "0.9" not in json.dumps(verdict["criteria"])


def _catalog(url: str, token: str) -> list[dict[str, Any]]:
    try:
        models: list[dict[str, Any]] = ask(url, token=token)["models"]
    except urllib.error.HTTPError:
        return []
    return models


def test_raw_rows_get_scores_from_the_model_server(lab: Lab) -> None:
    head, first = (lab.use_case / "data" / "mlc_churn.csv").read_text().splitlines()[:2]
    row = dict(zip(head.split(","), first.split(","), strict=True))
    inputs = [_input(name, value) for name, value in row.items() if name != "churn"]
    answer = ask(f"http://127.0.0.1:{lab.port + 3}/v2/models/churn/infer", body={"inputs": inputs})
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert 0 <= outputs["score"]["data"][0] <= 1


def _input(name: str, value: str) -> dict[str, Any]:
    if re.fullmatch(r"-?\d+", value):
        return {"name": name, "datatype": "INT64", "shape": [1], "data": [int(value)]}
    if re.fullmatch(r"-?\d+\.\d+", value):
        return {"name": name, "datatype": "FP64", "shape": [1], "data": [float(value)]}
    return {"name": name, "datatype": "BYTES", "shape": [1], "data": [value]}


def test_the_report_shows_every_domain_and_stands_alone(lab: Lab) -> None:
    page = (lab.output("mno-production", "report") / "report.html").read_text()
    for word in (*DOMAINS, "estimated", "CO₂e", "roc_auc", "not anonymous in the sense of the GDPR"):
        assert word in page
    assert not re.search(r"""(src|href)=["'](https?:)?//""", page), "nothing is loaded from elsewhere"
    evidence = statement(lab, "mno-production", "evidence")
    assert evidence["subject_digest"].removeprefix("sha256:")[:12] in page


def test_private_files_are_private(lab: Lab) -> None:
    for domain in DOMAINS:
        for folder in ("keys", "tokens", "stages"):
            for path in (lab.state(domain) / folder).rglob("*"):
                if not path.is_symlink():
                    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_second_run_changes_nothing_computes_nothing_and_shows_no_secret(lab: Lab) -> None:
    before = lab.computed()
    played = lab.play("workflow", "-vvv").succeeded()
    assert played.changed == 0, played.output
    assert lab.computed() == before
    for secret in secrets(lab):
        assert secret not in played.output


def secrets(lab: Lab) -> set[str]:
    """Every line of the files that hold keys and tokens, but for their frames and comments."""
    folders = [lab.state(domain) / name for domain in DOMAINS for name in ("keys", "people", "tokens", "issued")]
    lines = {
        line
        for folder in folders
        for file in folder.rglob("*")
        if file.is_file()
        for line in file.read_text().splitlines()
    }
    return {line for line in lines if len(line) > 20 and not line.startswith(("-----", "#"))}


def test_check_mode_afterwards_says_that_nothing_would_change(lab: Lab) -> None:
    before = tree(lab.home)
    played = lab.play("workflow", "--check").succeeded()
    assert played.changed == 0, played.output
    log = {name for name, digest in tree(lab.home).items() if before.get(name) != digest}
    assert all(name.endswith((".log", ".db-wal", ".db-shm")) for name in log), log


def test_a_changed_hyper_parameter_trains_and_judges_again_but_releases_nothing(lab: Lab) -> None:
    before = lab.computed()
    lab.change("workflow.yml", "n_estimators: 200", "n_estimators: 120")
    lab.play("workflow", "-e", "hxmlops_approver=").failed("no approval of churn 1.0.2 for mno-production")
    again = {name.rsplit("/", 1)[0] for name in lab.computed() - before}
    assert {"software-vendor/training", "mno-staging/testing"} <= again
    assert not {"mno-production/anonymization", "mno-production/encryption"} & again
    assert served(lab)["current"] == "1.0.1", "nobody has approved the new one"


def test_a_person_approves_and_each_step_goes_on_alone(lab: Lab) -> None:
    nobody = lab.play("approve_model", "-e", "approve_model_person=carol")
    nobody.failed("carol")
    lab.play("approve_model", "--limit", "mno-production", "-e", "approve_model_person=bob").succeeded()
    lab.play("promote_model", "--limit", "mno-production", "-e", "hxmlops_approver=").succeeded()
    assert served(lab)["current"] == "1.0.2"
    assert served(lab)["previous"] == "1.0.1"


def test_a_changed_threshold_judges_again_but_trains_nothing(lab: Lab) -> None:
    before = lab.computed()
    lab.change("workflow.yml", "roc_auc: 0.8}", "roc_auc: 0.79}")
    lab.play().succeeded()
    again = {name.rsplit("/", 1)[0] for name in lab.computed() - before}
    assert "mno-staging/acceptance" in again
    assert not any(name.startswith("software-vendor/") for name in again)
    assert "mno-staging/testing" not in again


def test_rollback_brings_the_previous_version_back(lab: Lab) -> None:
    current, previous = served(lab)["current"], served(lab)["previous"]
    lab.play("promote_model", "-e", "hxmlops_rollback=true").succeeded()
    assert served(lab)["current"] == previous
    url = f"http://127.0.0.1:{lab.port + 3}/v2/models/churn"
    assert ask(f"{url}/versions/{current}") is not None, "the other one stays ready"
    assert lab.play("promote_model").succeeded().changed == 0, "it stays rolled back until somebody says otherwise"
    assert served(lab)["current"] == previous


def test_what_the_gate_refuses_is_told_to_the_vendor_too(lab: Lab) -> None:
    lab.change("workflow.yml", "energy_budget_j: 20000", "energy_budget_j: 0.5")
    lab.play("accept_model").failed("energy_budget")
    verdict = statement(lab, "mno-staging", "acceptance")["body"]
    assert verdict["criteria"] == [{"criterion": "energy_budget", "passed": False}]
    token = lab.token("software-vendor", "software-vendor")
    records = _catalog(f"http://127.0.0.1:{lab.port + 1}/api/v1/model_catalog?status=staging", token)
    told = [
        json.loads(base64.b64decode(value["payload"]))["body"]
        for record in records
        for name, value in record["characteristics"].items()
        if name.startswith("acceptance")
    ]
    assert verdict in told
    assert told[0]["decision"] == "accepted", "what it was told before stays"
    lab.change("workflow.yml", "energy_budget_j: 0.5", "energy_budget_j: 20000")


def test_a_model_below_the_threshold_stops_in_staging_and_the_vendor_is_told(lab: Lab) -> None:
    before = served(lab)
    lab.change("workflow.yml", "roc_auc: 0.79", "roc_auc: 0.999")
    lab.play("accept_model").failed("roc_auc")
    assert served(lab) == before
    declared = statement(lab, "mno-staging", "evidence")["body"]["metrics"]["roc_auc"]
    assert declared["lower"] > 0.84, "the vendor's own test was content"
    verdict = statement(lab, "mno-staging", "acceptance")["body"]
    assert verdict["decision"] == "rejected"
    assert {"criterion": "roc_auc", "passed": False} in verdict["criteria"]
    lab.change("workflow.yml", "roc_auc: 0.999", "roc_auc: 0.79")


def test_a_changed_row_releases_a_new_dataset_and_all_that_follows(lab: Lab) -> None:
    row = a_released_row(lab)
    minutes = row.split(",")[7]
    lab.change(
        "data/mlc_churn.csv", f"\n{row}\n", f"\n{row.replace(f',{minutes},', f',{float(minutes) + 0.1:.1f},', 1)}\n"
    )
    before = lab.computed()
    lab.play().succeeded()
    again = {name.rsplit("/", 1)[0] for name in lab.computed() - before}
    assert {"mno-production/anonymization", "software-vendor/training", "mno-staging/acceptance"} <= again


def a_released_row(lab: Lab) -> str:
    """A row of the raw data that is not in the hidden part, found by its three kinds of minutes."""
    columns = ["total_day_minutes", "total_eve_minutes", "total_night_minutes"]
    table = pq.read_table(lab.output("mno-production", "anonymization") / "training.parquet", columns=columns)
    released = set(zip(*(column.to_pylist() for column in table.columns), strict=True))
    for line in (lab.use_case / "data" / "mlc_churn.csv").read_text().splitlines()[1:]:
        values = line.split(",")
        if (float(values[7]), float(values[10]), float(values[13])) in released:
            return line
    raise AssertionError("no raw row is in the released part")


def test_an_unknown_key_is_refused_before_anything_is_touched(lab: Lab) -> None:
    before = lab.computed()
    lab.change("workflow.yml", "intended_use:", "intended_uses:")
    lab.play().failed("unknown key domains.software-vendor.intended_uses; did you mean intended_use?")
    lab.change("workflow.yml", "intended_uses:", "intended_use:")
    assert lab.computed() == before


def test_an_unknown_location_is_an_error_not_a_default(lab: Lab) -> None:
    lab.play("build_model", "-e", "hxmlops_location=XX").failed("XX")


def test_down_stops_everything(lab: Lab) -> None:
    lab.play("teardown").succeeded()
    for offset in range(4):
        with pytest.raises(OSError, match="refused"):
            ask(f"http://127.0.0.1:{lab.port + offset}/api/v1/health")
