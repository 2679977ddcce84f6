"""Training by real train.py programs: what a good one leaves, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper, numpy_helper

from hxmlops_evidence.digests import files_digest
from hxmlops_evidence.errors import BadInput, Refused
from hxmlops_recipe.tables import database
from hxmlops_stages import training
from hxmlops_stages.program import Context, Outcome

CONTRACT: dict[str, Any] = {
    "schema": {"subject": "user", "target": "leaves", "columns": {}},
    "model": {
        "task": "classification",
        "format": "onnx",
        "features": {"plan": "one_hot", "minutes": "number"},
        "output": {"name": "probabilities", "index": 1, "positive": "yes"},
        "metrics": ["roc_auc"],
    },
}
RECIPE = {
    "schema_version": "1.0",
    "drop": ["user"],
    "pseudonym": False,
    "columns": {"plan": {"keep": True}, "minutes": {"keep": True}, "leaves": {"keep": True}},
    "features": [
        {"name": "plan=basic", "column": "plan", "equals": "basic"},
        {"name": "minutes", "column": "minutes"},
    ],
}
# A train.py that learns nothing: its model lies beside it, as files beside a real train.py may.
READ = """
import argparse, json, os, pathlib, shutil, subprocess, sys, time
parser = argparse.ArgumentParser()
for name in ("data", "parameters", "output"):
    parser.add_argument("--" + name, type=pathlib.Path)
told = parser.parse_args()
"""
MODEL = 'shutil.copy(pathlib.Path(__file__).with_name("ready.onnx"), told.output / "model.onnx")\n'
METRICS = '(told.output / "metrics.json").write_text(json.dumps({"auc": 0.75}))\n'
GOOD = READ + MODEL + METRICS


def tiny_model(weights: list[float], kind: int = TensorProto.FLOAT, outputs: str = "probabilities") -> onnx.ModelProto:
    """Two features -> softmax of a linear map to two classes."""
    matrix = np.array([[0.0, weights[0]], [0.0, weights[1]]], helper.tensor_dtype_to_np_dtype(kind))
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "weights"], ["scores"]),
            helper.make_node("Softmax", ["scores"], [outputs], axis=1),
        ],
        "tiny",
        [helper.make_tensor_value_info("features", kind, [None, 2])],
        [helper.make_tensor_value_info(outputs, kind, [None, 2])],
        [numpy_helper.from_array(matrix, "weights")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def released_rows(count: int = 40) -> pa.Table:
    minutes = [float(index % 17) for index in range(count)]
    return pa.table(
        {
            "plan": ["basic" if index % 3 else "gold" for index in range(count)],
            "minutes": minutes,
            "leaves": ["yes" if each > 8 else "no" for each in minutes],
            "bill": [each / 4 for each in minutes],
        }
    )


Train = Callable[..., Outcome]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A training stage's folder whose train.py finds a usable model beside it."""
    code = tmp_path / "input" / "code"
    code.mkdir(parents=True)
    pq.write_table(released_rows(), tmp_path / "input" / "data.parquet")
    (tmp_path / "input" / "recipe.json").write_text(json.dumps(RECIPE))
    (code / "ready.onnx").write_bytes(tiny_model([1.0, -0.5]).SerializeToString())
    return tmp_path


@pytest.fixture
def train(folder: Path) -> Train:
    """Run the stage with this train.py; further arguments change its parameters."""

    def run(script: str, **parameters: Any) -> Outcome:
        (folder / "input" / "code" / "train.py").write_text(script)
        shutil.rmtree(folder / "output", ignore_errors=True)
        (folder / "output").mkdir()
        spec = {
            "stage": "training",
            "contract": CONTRACT,
            "parameters": {
                "train": "train.py",
                "parameters": {"depth": 3},
                "seed": 7,
                "holdout_share": 0.25,
                "time_limit_s": 20,
                "memory_limit_gb": 2,
                **parameters,
            },
        }
        return training.run(Context(spec, folder / "input", folder / "output", folder / "domain", "run-1", "NO"))

    return run


def split(folder: Path, rows: pa.Table, seed: int, share: float) -> tuple[pa.Table, pa.Table]:
    pq.write_table(rows, folder / "rows.parquet")
    with database(folder / "scratch") as tables:
        for side, table in enumerate(training.split(tables, tables.read_parquet(folder / "rows.parquet"), seed, share)):
            tables.write_parquet(table, folder / f"{side}.parquet")
    return pq.read_table(folder / "0.parquet"), pq.read_table(folder / "1.parquet")


def refused(train: Train, script: str, **parameters: Any) -> tuple[str, str]:
    """(criterion, reason) of a train.py that must be refused."""
    with pytest.raises(Refused) as caught:
        train(script, **parameters)
    assert "\n" not in str(caught.value)
    return caught.value.criterion, caught.value.reason


def test_a_good_train_py_leaves_model_metrics_holdout_and_log(folder: Path, train: Train) -> None:
    outcome = train(GOOD + 'print("half way"); print("a warning", file=sys.stderr)')
    output = folder / "output"
    assert sorted(path.relative_to(output).as_posix() for path in output.rglob("*")) == [
        "holdout.parquet",
        "log.txt",
        "metrics.json",
        "model",
        "model/model.onnx",
    ]
    assert json.loads((output / "metrics.json").read_text()) == {"auc": 0.75}
    assert sorted((output / "log.txt").read_text().splitlines()) == ["a warning", "half way"]
    assert pq.read_table(output / "holdout.parquet").column_names == ["plan", "minutes", "leaves", "bill"]
    assert outcome.metrics["rows"] + outcome.metrics["holdout_rows"] == 40
    assert outcome.metrics["declared"] == {"auc": 0.75}


def test_what_train_py_is_given(folder: Path, train: Train) -> None:
    keep = folder / "kept"
    train(GOOD + f'shutil.copytree(told.data.parent, "{keep}")\n')
    table = pq.read_table(keep / "train.parquet")
    assert table.column_names == ["plan=basic", "minutes", "leaves"]
    assert set(table.schema.types) == {pa.float32()}
    assert set(table["plan=basic"].to_pylist()) == {0.0, 1.0}
    assert table["leaves"].to_pylist() == [float(each > 8) for each in table["minutes"].to_pylist()]
    assert json.loads((keep / "parameters.json").read_text()) == {
        "task": "classification",
        "features": ["plan=basic", "minutes"],
        "target": "leaves",
        "output": {"name": "probabilities", "index": 1, "positive": "yes"},
        "seed": 7,
        "parameters": {"depth": 3},
    }


def test_a_regressions_target_is_its_value(folder: Path, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONTRACT["schema"], "target", "bill")
    monkeypatch.setitem(CONTRACT["model"], "task", "regression")
    train(GOOD + f'shutil.copy(told.data, "{folder}")\n')
    table = pq.read_table(folder / "train.parquet")
    assert table["bill"].to_pylist() == [each / 4 for each in table["minutes"].to_pylist()]


def test_train_py_sees_nothing_of_its_caller(folder: Path, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_PASSWORD", "hunter2")
    look = {
        "environment": "dict(os.environ)",
        "here": "os.listdir()",
        "stdin": "sys.stdin.read()",
        "session": "os.getsid(0) == os.getpid()",
        "limits": "[resource.getrlimit(k)[1] for k in (resource.RLIMIT_DATA, resource.RLIMIT_CORE)]",
        "files": "os.listdir('/proc/self/fd')",
        "privileges": "'NoNewPrivs:\\t1' in open('/proc/self/status').read()",
    }
    seen = "{" + ", ".join(f"{name!r}: {code}" for name, code in look.items()) + "}"
    report = folder / "seen.json"
    train(GOOD + f'import resource\npathlib.Path("{report}").write_text(json.dumps({seen}))\n')
    found = json.loads(report.read_text())
    environment = found["environment"]
    assert environment.pop("LC_CTYPE", None) in (None, "C.UTF-8")  # Python's own doing
    threads = {f"{name}_NUM_THREADS" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB")}
    assert set(environment) == {"PATH", "LANG", "HOME", "TMPDIR", "PYTHONHASHSEED"} | threads
    assert environment["HOME"].startswith(str(folder / "output"))
    assert found["here"] == []
    assert found["stdin"] == ""
    assert found["session"]
    assert found["limits"] == [2_000_000_000, 0]
    assert len(found["files"]) <= 4  # stdin, stdout, stderr, and the listing itself
    assert found["privileges"]


def test_lines_are_passed_on_while_it_runs(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    train(GOOD + 'print("epoch 1"); print("\\x1b[31mepoch\\x1b[0m 2", end="")')
    assert capsys.readouterr().out.splitlines()[1:] == ["training: epoch 1", "training: [31mepoch[0m 2"]


def test_same_input_and_seed_same_bytes_whatever_the_order_of_rows(folder: Path, train: Train) -> None:
    rows = released_rows(200)
    digests = []
    for order in (range(200), reversed(range(200))):
        pq.write_table(rows.take(list(order)), folder / "input" / "data.parquet")
        train(GOOD + f'shutil.copy(told.data, "{folder}")\n')
        shutil.copy(folder / "train.parquet", folder / "output")
        digests.append(files_digest(folder / "output"))
    assert digests[0] == digests[1]


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_holdout_share(tmp_path: Path, share: float) -> None:
    rows = pa.table({"a": list(range(2000)), "b": [None, "x"] * 1000})
    kept, held_out = split(tmp_path, rows, 7, share)
    assert len(held_out) == pytest.approx(share * 2000, rel=0.15)
    assert sorted(kept["a"].to_pylist() + held_out["a"].to_pylist()) == list(range(2000))
    assert split(tmp_path, rows, 8, share)[1] != held_out


def test_equal_rows_stay_on_one_side(tmp_path: Path) -> None:
    kept, held_out = split(tmp_path, pa.table({"a": [index % 50 for index in range(500)]}), 1, 0.3)
    assert not set(kept["a"].to_pylist()) & set(held_out["a"].to_pylist())
    assert len(held_out) % 10 == 0


def test_a_split_with_an_empty_side_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"3 rows cannot be split by holdout_share 0\.25"):
        split(tmp_path, pa.table({"a": [1, 1, 1]}), 1, 0.25)


def test_rows_without_a_target_are_bad_input(folder: Path, train: Train) -> None:
    rows = released_rows().set_column(2, "leaves", pa.array(["yes", None] * 20))
    pq.write_table(rows, folder / "input" / "data.parquet")
    with pytest.raises(BadInput, match=r"leaves: \d+ rows have no value"):
        train(GOOD)


def test_no_such_train_py_is_bad_input(train: Train) -> None:
    with pytest.raises(BadInput, match=r"fit\.py: no such file"):
        train(GOOD, train="fit.py")


def test_a_crash_gives_exit_code_last_line_and_log(folder: Path, train: Train) -> None:
    criterion, reason = refused(train, READ + 'print("starting")\nraise ValueError("no such depth: 99")')
    log = folder / "output" / "log.txt"
    assert criterion == "training_exit"
    assert reason == f"train.py failed with exit code 1: ValueError: no such depth: 99; all it printed is in {log}"
    assert "Traceback" in log.read_text()
    assert not (folder / "output" / "model").exists()
    assert not (folder / "output" / "work").exists()


def test_a_signal_is_named(train: Train) -> None:
    assert "failed with SIGSEGV; all" in refused(train, READ + "os.kill(os.getpid(), 11)")[1]


def test_a_hang_ends_at_the_time_limit(train: Train) -> None:
    """Also of a program that has closed its output, which is no end."""
    hang = "sys.stdout.flush(); os.close(1); os.close(2); time.sleep(60)"
    begun = time.monotonic()
    criterion, reason = refused(train, GOOD + hang, time_limit_s=1)
    assert 1 <= time.monotonic() - begun < 5
    assert criterion == "training_time"
    assert "did not end within 1 s (time_limit_s) and was stopped" in reason


def test_memory_beyond_the_limit(train: Train) -> None:
    criterion, reason = refused(train, READ + "bytearray(1_000_000_000)", memory_limit_gb=0.5)
    assert criterion == "training_memory"
    assert "train.py needs more than 0.5 GB (memory_limit_gb)" in reason


CHILD = "[sys.executable, '-c', 'import os, time; os.setsid(); time.sleep(60)']"
STRAGGLERS = {
    "a child": f"child = subprocess.Popen({CHILD}).pid",
    "one whose parent is gone": f"""
pid = os.fork()
if not pid:
    child = subprocess.Popen({CHILD}).pid
    print("child", child)
    os._exit(0)
os.waitpid(pid, 0)
child = None""",
}


@pytest.mark.parametrize("how", STRAGGLERS)
@pytest.mark.parametrize("ends", ["in time", "at the limit"])
def test_nothing_that_it_started_outlives_it(
    train: Train, capsys: pytest.CaptureFixture[str], how: str, ends: str
) -> None:
    script = GOOD + STRAGGLERS[how] + '\nif child: print("child", child)\ntime.sleep(0.2)\n'
    begun = time.monotonic()
    if ends == "in time":
        train(script)
    else:
        assert refused(train, script + "time.sleep(60)\n", time_limit_s=1.5)[0] == "training_time"
    assert time.monotonic() - begun < 10
    (pid,) = (line.split()[-1] for line in capsys.readouterr().out.splitlines() if "child" in line)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_it_does_not_outlive_its_stage(tmp_path: Path) -> None:
    sleeper = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    stage = f"""
from pathlib import Path
from hxmlops_stages import confined
confined.run(["{sys.executable}", "-c", "{sleeper}"], folder=Path("{tmp_path}"), environment={{}}, time_limit_s=60,
             memory_limit_gb=1, log=Path("{tmp_path}/log"), on_line=lambda line: print(line, flush=True))
"""
    with subprocess.Popen([sys.executable, "-c", stage], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        process.kill()
        process.stdout.read()  # ends when the last that could write to it has ended
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}/stat").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_endless_output_does_not_fill_the_disk(folder: Path, train: Train) -> None:
    train(GOOD + 'sys.stdout.write("x" * 30_000_000)')
    assert (folder / "output" / "log.txt").stat().st_size == 16 << 20


WRONG_METRICS = {
    "nothing": ("", "there is no such file"),
    "not JSON": ('(told.output / "metrics.json").write_text("auc=1")', "it is not JSON"),
    "a list": ('(told.output / "metrics.json").write_text("[1]")', "it is no mapping"),
    "a text": ('(told.output / "metrics.json").write_text(\'{"auc": "good"}\')', "auc is none"),
    "NaN": ('(told.output / "metrics.json").write_text(json.dumps({"auc": float("nan")}))', "auc is nan"),
    "infinity": ('(told.output / "metrics.json").write_text(json.dumps({"loss": 1e999}))', "loss is inf"),
}


@pytest.mark.parametrize("what", WRONG_METRICS)
def test_metrics_must_be_finite_numbers(train: Train, what: str) -> None:
    script, why = WRONG_METRICS[what]
    criterion, reason = refused(train, READ + MODEL + script)
    assert criterion == "training_metrics"
    assert reason.endswith(why)


def test_no_model(train: Train) -> None:
    assert refused(train, READ + METRICS) == (
        "training_files",
        "train.py ended well but wrote no model; it must write model.onnx into --output",
    )


FOREIGN = {
    "a symbolic link": '(told.output / "key").symlink_to(target)',
    "a link to a folder": '(told.output / "keys").symlink_to(target.parent)',
    "a hard link": '(told.output / "key").hardlink_to(target)',
    "a pipe": 'os.mkfifo(told.output / "pipe")',
}


@pytest.mark.parametrize("what", FOREIGN)
def test_links_cannot_bring_in_the_domains_files(folder: Path, train: Train, what: str) -> None:
    (folder / "signing.pem").write_text("secret")
    script = GOOD + f'target = pathlib.Path("{folder}/signing.pem")\n' + FOREIGN[what]
    criterion, reason = refused(train, script)
    assert criterion == "training_files"
    assert "is a link or no regular file" in reason
    assert (folder / "signing.pem").read_text() == "secret"


def test_metrics_that_are_a_link_are_not_read(folder: Path, train: Train) -> None:
    script = READ + MODEL + f'(told.output / "metrics.json").symlink_to("{folder}/input/recipe.json")'
    assert refused(train, script)[0] == "training_metrics"


WRONG_MODELS: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "float64 input": (lambda: tiny_model([1.0, 1.0], TensorProto.DOUBLE), "format"),
    "NaN for some row": (lambda: tiny_model([1.0, float("nan")]), "model_outputs"),
    "another output": (lambda: tiny_model([1.0, 1.0], outputs="answer"), "model_outputs"),
    "another number of features": (lambda: _with_features(tiny_model([1.0, 1.0]), 3), "model_input"),
    "rows one by one": (lambda: _with_rows(tiny_model([1.0, 1.0]), 1), "model_input"),
}


def _with_features(model: onnx.ModelProto, features: int) -> onnx.ModelProto:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = features
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((features, 2), np.float32), "weights"))
    return model


def _with_rows(model: onnx.ModelProto, rows: int) -> onnx.ModelProto:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = rows
    return model


@pytest.mark.parametrize("what", WRONG_MODELS)
def test_a_model_that_cannot_be_used(folder: Path, train: Train, what: str) -> None:
    make, criterion = WRONG_MODELS[what]
    (folder / "input" / "code" / "ready.onnx").write_bytes(make().SerializeToString())
    assert refused(train, GOOD)[0] == criterion


def test_a_model_with_external_data(folder: Path, train: Train) -> None:
    code = folder / "input" / "code"
    onnx.save_model(
        tiny_model([1.0, 1.0]), code / "ready.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    copy = 'shutil.copy(pathlib.Path(__file__).with_name("w.bin"), told.output)\n'
    assert refused(train, GOOD + copy)[0] == "format"


def test_a_pickle_is_no_model(train: Train) -> None:
    pickled = 'import pickle\n(told.output / "model.pkl").write_bytes(pickle.dumps({"a": 1}))\n'
    assert refused(train, READ + METRICS + pickled)[0] == "format"
