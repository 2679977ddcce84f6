"""What the stages are given in tests: a contract, a release, a model, a test report, an energy record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

COLUMNS = {
    "subscriber_id": {"type": "integer", "minimum": 1},
    "minutes": {"type": "number", "minimum": 0, "unit": "min"},
    "churn": {"type": "string", "values": ["yes", "no"]},
}
CONTRACT: dict[str, Any] = {
    "schema": {"subject": "subscriber_id", "target": "churn", "columns": COLUMNS},
    "recipe": {},
    "model": {
        "task": "classification",
        "format": "onnx",
        "features": {"minutes": "number"},
        "output": {"name": "probabilities", "index": 0, "positive": "yes"},
        "metrics": ["roc_auc"],
    },
}
RECIPE: dict[str, Any] = {
    "schema_version": "1.0",
    "drop": ["subscriber_id"],
    "columns": {"minutes": {"bin": 50}, "churn": {"keep": True}},
    "pseudonym": False,
    "features": [{"name": "minutes", "column": "minutes"}],
}
PART = {
    "report": {
        "claim": "k-anonymous over the declared quasi-identifiers; pseudonymised personal data",
        "quasi_identifiers": {"minutes": 50},
        "k": {"required": 2, "reached": 2},
        "sensitive": {},
        "classes": 2,
        "rows_in": 4,
        "rows_suppressed": 0,
        "suppression_share": 0.0,
        "suppression_limit": 0.02,
        "information_loss": {"minutes": 0.5},
        "unique_share_all_columns": 0.0,
    },
    "statistics": {"rows": 4, "columns": {}},
}
REPORT: dict[str, Any] = {
    "schema_columns": {name: COLUMNS[name] for name in ("minutes", "churn")},
    "training": PART,
    "hidden": PART,
}
TESTED: dict[str, Any] = {
    "rows": 4,
    "metrics": {"roc_auc": {"value": 0.92, "lower": 0.90, "upper": 0.94}},
    "latency_ms": {"p50": 0.2, "p95": 0.5, "calls": 1000},
}


def energy_record(stage: str, *, cpu_s: float = 2.0, declared_j_upper: float = 20.0) -> dict[str, Any]:
    """An energy record as the executor keeps it of an earlier stage."""
    return {
        "stage": stage,
        "status": "done",
        "attempt_id": "1",
        "started_at": "2026-11-23T09:30:00.000Z",
        "method": "estimated",
        "source": "cgroup cpu.stat, Cloud Carbon Footprint coefficients",
        "cpu_s": cpu_s,
        "wall_s": 1.0,
        "vcpu": 2,
        "memory_gb": 0.5,
        "energy_j": declared_j_upper / 2,
        "energy_j_lower": declared_j_upper / 4,
        "energy_j_upper": declared_j_upper,
        "co2e_g": 0.001,
        "co2e_g_lower": 0.0005,
        "co2e_g_upper": 0.002,
        "location": "FI",
        "intensity_g_per_kwh": 80.0,
        "intensity_source": "yearly average",
        "run_id": "run-1",
    }


def make_data(folder: Path) -> None:
    """A release as the anonymization stage leaves it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    for part, minutes in {"training": [0.0, 0.0, 50.0, 50.0], "hidden": [0.0, 50.0, 50.0, 50.0]}.items():
        pq.write_table(pa.table({"minutes": minutes, "churn": ["no", "no", "yes", "yes"]}), folder / f"{part}.parquet")
    (folder / "recipe.json").write_text(json.dumps(RECIPE))
    (folder / "report.json").write_text(json.dumps(REPORT))


def make_model(folder: Path) -> None:
    """A model as the training and testing stages leave it: probability of churn = sigmoid(minutes)."""
    from onnx import TensorProto, helper

    (folder / "model").mkdir(parents=True)
    (folder / "code").mkdir()
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in ("x", "probabilities")]
    graph = helper.make_graph([helper.make_node("Sigmoid", ["x"], ["probabilities"])], "churn", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    (folder / "model" / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "code" / "train.py").write_text("print('trained')\n")
    (folder / "metrics.json").write_text('{"roc_auc": 0.93}')
    (folder / "report.json").write_text(json.dumps(TESTED))
