"""Our figures of anonymity are those of pycanon, an independent implementation with an environment of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from hxmlops_evidence.keys import make_keys
from hxmlops_stages import anonymization, data_validation
from hxmlops_stages.anonymity import figures, number
from hxmlops_stages.program import Context

PROJECT = Path(__file__).parents[2]
PYCANON = """
import json, sys
import pandas as pd
from pycanon import anonymity
for table in json.load(open(sys.argv[1])):
    of = pd.DataFrame(table["rows"], columns=[*table["quasi_identifiers"], "s"]), table["quasi_identifiers"]
    found = anonymity.k_anonymity(*of), anonymity.l_diversity(*of, ["s"]), anonymity.t_closeness(*of, ["s"])
    print(json.dumps([float(figure) for figure in found]))
"""


def test_figures_are_those_of_pycanon(tmp_path: Path) -> None:
    churn, stated = churn_release(tmp_path)
    tables = [churn, *random_tables(24)]
    (tmp_path / "tables.json").write_text(json.dumps(tables))
    python = PROJECT / ".venv-anonymity/bin/python"
    ran = subprocess.run([python, "-c", PYCANON, tmp_path / "tables.json"], capture_output=True, text=True, check=True)
    theirs = [json.loads(line) for line in ran.stdout.splitlines()]
    ours = [measured(table) for table in tables]
    assert [found[:2] for found in ours] == [found[:2] for found in theirs]
    assert [found[2] for found in ours] == pytest.approx([found[2] for found in theirs], abs=1e-9)
    assert stated == pytest.approx(theirs[0], rel=1e-5)  # what the release's report says


def measured(table: dict[str, Any]) -> list[float]:
    *quasi_identifiers, sensitive = (
        np.unique(column, return_inverse=True)[1].astype(np.int64) for column in zip(*table["rows"], strict=True)
    )
    ordered = frozenset({"s"} if isinstance(table["rows"][0][-1], int) else ())
    found = figures(number(quasi_identifiers), {"s": sensitive}, np.ones(len(sensitive), np.int64), ordered)
    return [found.k, found.l["s"], found.t["s"]]


def random_tables(count: int) -> list[dict[str, Any]]:
    """Tables of up to three quasi-identifiers; every other one has numbers for its sensitive column."""
    random = np.random.default_rng(20260714)
    tables = []
    for index in range(count):
        width, rows = int(random.integers(1, 4)), int(random.integers(8, 60))
        sensitive = random.choice([1, 2, 5, 9, 100] if index % 2 else ["a", "b", "c"], size=rows).tolist()
        left = random.integers(0, 3, size=(rows, width)).tolist()
        names = [f"q{place}" for place in range(width)]
        tables.append({"quasi_identifiers": names, "rows": [[*row, s] for row, s in zip(left, sensitive, strict=True)]})
    return tables


def churn_release(folder: Path) -> tuple[dict[str, Any], list[float]]:
    """The churn example's training part as it is released, and k, l, t as its report states them."""
    churn = PROJECT / "workflows/churn"
    contract = yaml.safe_load((churn / "workflow.yml").read_text())["contract"]
    make_keys(folder / "domain/keys")
    workflow = {"id": "churn", "vendor": "software-vendor", "acceptor": "mno-staging"}
    spec = {"stage": "anonymization", "workflow": workflow, "contract": contract, "parameters": {"table": "raw"}}
    contexts = []
    for stage in ("data_validation", "anonymization"):
        for name in ("input", "output"):
            (folder / stage / name).mkdir(parents=True)
        given, made = folder / stage / "input", folder / stage / "output"
        contexts.append(Context(spec, given, made, folder / "domain", "run-1", "NO"))
    validation, protection = contexts
    (validation.input / "data.csv").symlink_to(churn / "data/mlc_churn.csv")
    data_validation.run(validation)
    (protection.input / "data.parquet").symlink_to(validation.output / "data.parquet")
    anonymization.run(protection)
    report = json.loads((protection.output / "report.json").read_bytes())["training"]["report"]
    quasi_identifiers = list(contract["recipe"]["quasi_identifiers"])
    table = pq.read_table(protection.output / "training.parquet", columns=[*quasi_identifiers, "churn"])
    rows = [list(row.values()) for row in table.to_pylist()]
    sensitive = report["sensitive"]["churn"]
    stated = [report["k"]["reached"], sensitive["l_reached"], sensitive["t_reached"]]
    return {"quasi_identifiers": quasi_identifiers, "rows": rows}, stated
