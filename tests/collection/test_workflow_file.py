"""The workflow file: what is filled in, what is refused and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._workflow import WorkflowError, load

WORKFLOW: dict[str, Any] = {
    "schema_version": "1.0",
    "id": "churn",
    "version": "1.0",
    "owner": "mno-production",
    "vendor": "software-vendor",
    "acceptor": "mno-staging",
    "server": "mno-production",
    "contract": {"schema": {}},
    "domains": {
        "mno-production": {"data": "data/churn.csv"},
        "software-vendor": {"train": "train.py", "intended_use": "find subscribers about to leave"},
        "mno-staging": {"thresholds": {"roc_auc": 0.85}, "energy_budget_j": 1000},
    },
}


def written(folder: Path, **changes: Any) -> Path:
    file = folder / "workflow.yml"
    file.write_text(yaml.safe_dump({**WORKFLOW, **changes}), encoding="utf-8")
    return file


def domains(name: str, **part: Any) -> dict[str, Any]:
    return {**WORKFLOW["domains"], name: {**WORKFLOW["domains"][name], **part}}


def test_paths_are_resolved_against_the_files_folder(tmp_path: Path) -> None:
    parts = load(written(tmp_path))["domains"]
    assert parts["mno-production"]["data"] == str(tmp_path / "data" / "churn.csv")
    assert parts["software-vendor"]["train"] == str(tmp_path / "train.py")


def test_what_a_part_leaves_out_has_a_default(tmp_path: Path) -> None:
    parts = load(written(tmp_path, domains=domains("mno-production", serving={"smoke_rows": 7})))["domains"]
    assert parts["mno-production"]["serving"] == {"smoke_rows": 7, "latency_ms_p95": 50}
    assert parts["mno-production"]["release"] == {"valid_days": 90}
    assert parts["mno-staging"]["format_policy"] == {"allow": ["onnx"], "allow_pickles": []}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vendors": "x"}, "unknown key vendors; did you mean vendor?"),
        ({"zzz": 1}, "unknown key zzz; known here: acceptor,"),
        (
            {"domains": domains("mno-staging", treshold={})},
            "unknown key domains.mno-staging.treshold; did you mean thresholds?",
        ),
        (
            {"domains": domains("mno-production", release={"valid_day": 3})},
            "domains.mno-production.release.valid_day",
        ),
        (
            {"domains": domains("mno-production", release=3)},
            "domains.mno-production.release must be a mapping",
        ),
        ({"domains": {"mno-stagin": {}}}, "unknown key domains.mno-stagin; did you mean mno-staging?"),
        ({"domains": {"mno-staging": {"thresholds": {}}}}, "domains.mno-staging.energy_budget_j is missing"),
        ({"schema_version": "2.0"}, "schema_version 2.0 is not known here"),
        ({"version": 1.0}, "version: write it as text in quotes"),
        ({"contract": None}, "contract must be a mapping"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    file = written(tmp_path, **changes)
    with pytest.raises(WorkflowError) as caught:
        load(file)
    assert str(caught.value).startswith(f"workflow file {file}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    file = tmp_path / "workflow.yml"
    file.write_text(yaml.safe_dump({k: v for k, v in WORKFLOW.items() if k != "server"}), encoding="utf-8")
    with pytest.raises(WorkflowError, match="server is missing"):
        load(file)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [", "not YAML"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
        (b"", "must be a mapping"),
        (b"- 1", "must be a mapping"),
    ],
)
def test_a_file_that_is_no_workflow_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "workflow.yml"
    file.write_bytes(content)
    with pytest.raises(WorkflowError, match=words):
        load(file)


def test_a_missing_file_says_which_variable_names_it(tmp_path: Path) -> None:
    with pytest.raises(WorkflowError, match="give -e hxmlops_workflow=PATH"):
        load(tmp_path / "nowhere.yml")
