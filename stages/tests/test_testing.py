"""Testing of tiny models on rows whose metrics are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper, numpy_helper

from hxmlops_evidence.errors import BadInput, Refused
from hxmlops_stages import inference, testing
from hxmlops_stages.program import Context, Outcome

ROWS = 300


def linear_model(weight: float, bias: float, name: str = "value", shape: tuple[int, ...] = (-1, 1)) -> bytes:
    """One feature x -> weight * x + bias, its output in the given shape."""
    constants = {
        "weight": np.array([[weight]], np.float32),
        "bias": np.array([bias], np.float32),
        "shape": np.array(shape, np.int64),
    }
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "weight"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["sum"]),
            helper.make_node("Reshape", ["sum", "shape"], [name]),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 1])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def contract(task: str) -> dict[str, Any]:
    if task == "regression":
        output: dict[str, Any] = {"name": "value", "index": 0}
        return {
            "schema": {"target": "speed"},
            "model": {"task": task, "output": output, "metrics": ["mae", "rmse", "r2"]},
        }
    return {
        "schema": {"target": "churn"},
        "model": {
            "task": task,
            "output": {"name": "value", "index": 0, "positive": "yes"},
            "metrics": ["roc_auc", "brier"],
        },
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Rows with speed = 2 x + 1 up to an error of 0.5 in either direction, and churn where x > 0.5."""
    x = np.linspace(0, 1, ROWS)
    error = np.where(np.arange(ROWS) % 2, 0.5, -0.5)
    rows = pa.table({"x": x, "speed": 2 * x + 1 + error, "churn": np.where(x > 0.5, "yes", "no")})
    recipe = {"features": [{"name": "x", "column": "x"}]}
    (tmp_path / "input" / "model").mkdir(parents=True)
    (tmp_path / "output").mkdir()
    (tmp_path / "input" / "recipe.json").write_text(json.dumps(recipe))
    pq.write_table(rows, tmp_path / "input" / "data.parquet")
    return tmp_path


def run(folder: Path, model: bytes, task: str = "regression", **parameters: Any) -> tuple[Outcome, dict[str, Any]]:
    """(outcome, report) of a test."""
    (folder / "input" / "model" / "model.onnx").write_bytes(model)
    spec = {"stage": "testing", "contract": contract(task), "parameters": parameters}
    context = Context(spec, folder / "input", folder / "output", folder / "domain", "run-1", "NO")
    return testing.run(context), json.loads((folder / "output" / "report.json").read_text())


def test_the_report_has_metrics_latency_and_energy(folder: Path) -> None:
    outcome, report = run(folder, linear_model(2, 1))
    assert sorted(report) == ["bootstrap", "energy_j_per_1000_inferences", "latency_ms", "metrics", "rows"]
    assert report["rows"] == ROWS
    assert report["metrics"]["mae"] == pytest.approx({"value": 0.5, "lower": 0.5, "upper": 0.5}, abs=1e-6)
    assert report["metrics"]["r2"]["lower"] < report["metrics"]["r2"]["value"] < 1
    assert report["bootstrap"] == {"resamples": 200, "level": 0.95, "seed": 0}
    assert 0 < report["latency_ms"]["p50"] <= report["latency_ms"]["p95"]
    energy = report["energy_j_per_1000_inferences"]
    assert 0 < energy["lower"] < energy["value"] < energy["upper"]
    assert energy["method"] == "estimated"
    assert outcome.summary.startswith("mae 0.500 (0.500 to 0.500), rmse")


def test_a_classifiers_positive_class_is_the_contracts(folder: Path) -> None:
    report = run(folder, linear_model(1, 0), "classification")[1]
    assert report["metrics"]["roc_auc"] == {"value": 1, "lower": 1, "upper": 1}
    assert run(folder, linear_model(-1, 1), "classification")[1]["metrics"]["roc_auc"]["value"] == 0


def test_the_same_model_and_rows_get_the_same_metrics(folder: Path) -> None:
    model = linear_model(1.9, 1.1)
    assert run(folder, model)[1]["metrics"] == run(folder, model)[1]["metrics"]


def test_parameters_bound_the_work(folder: Path) -> None:
    report = run(folder, linear_model(2, 1), bootstrap=50, latency_rows=30)[1]
    assert report["bootstrap"]["resamples"] == 50
    assert report["latency_ms"]["calls"] == 30


def test_a_slow_model_is_measured_by_fewer_calls(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "_LONGEST_S", 0.0)
    assert run(folder, linear_model(2, 1))[1]["latency_ms"]["calls"] == 20


def test_batches_make_no_difference(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(folder, linear_model(2, 1))[1]["metrics"]
    monkeypatch.setattr(inference, "_BATCH", 7)
    assert run(folder, linear_model(2, 1))[1]["metrics"] == whole


def test_a_flat_output_is_a_column(folder: Path) -> None:
    report = run(folder, linear_model(2, 1, shape=(-1,)))[1]
    assert report["metrics"]["mae"]["value"] == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("model", "task", "reason"),
    [
        (linear_model(float("nan"), 0), "regression", "answers NaN or infinity for 300 of 300 rows"),
        (linear_model(1, 0.1), "classification", "answers no probability (0 to 1) for 30 rows"),
        (linear_model(1, 0, name="score"), "regression", "no output value, which the contract names; it has score"),
        (linear_model(1, 0, shape=(1, -1)), "regression", "has shape [1, 300] for 300 rows"),
    ],
    ids=["NaN", "no probabilities", "another output", "another shape"],
)
def test_answers_that_cannot_be_used(folder: Path, model: bytes, task: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        run(folder, model, task)
    assert caught.value.criterion == "model_outputs"
    assert reason in caught.value.reason


def test_no_model_and_no_onnx(folder: Path) -> None:
    with pytest.raises(Refused, match=r"model_loads: model\.onnx does not load"):
        run(folder, b"not a model")
    (folder / "input" / "model" / "model.onnx").unlink()
    with pytest.raises(Refused, match=r"model_file: the model has no model\.onnx"):
        inference.Model(folder / "input" / "model", contract("regression"), 1)


def test_a_missing_feature_is_nan_for_the_model(folder: Path) -> None:
    rows = pq.read_table(folder / "input" / "data.parquet")
    x = pa.array([None, *rows["x"].to_pylist()[1:]], pa.float64())
    pq.write_table(rows.set_column(0, "x", x), folder / "input" / "data.parquet")
    with pytest.raises(Refused, match="NaN or infinity for 1 of 300 rows"):
        run(folder, linear_model(2, 1))


@pytest.mark.parametrize(("rows", "reason"), [(0, "no rows to test on"), (3, "only 0 of the rarer class")])
def test_too_few_rows(folder: Path, rows: int, reason: str) -> None:
    table = pq.read_table(folder / "input" / "data.parquet")
    pq.write_table(table.slice(0, rows), folder / "input" / "data.parquet")
    with pytest.raises(BadInput, match=reason):
        run(folder, linear_model(1, 0), "classification")
