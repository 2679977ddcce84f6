"""Pseudonyms and k-anonymity for a million subscribers: ours beside Python's hmac and anjana.

    .venv/bin/python benchmarks/anonymization.py [ROWS]

All get the same made-up table, seeded and shaped like the churn example but with contracts of up to ten years (of the
example's 243 days a million rows need no generalisation at all), and the same quasi-identifiers, ladders, k and
suppression limit. Each program runs in a process of its own, whose peak memory is the kernel's figure, and is timed
without its imports (ours and Python's hmac: the best of three runs). The peer starts with a DataFrame in memory, ours
with a Parquet file. The whole stage does more: split, search with l, t and earlier releases in view, two Parquet files
in secret order, lineage, statistics, report.

The peer gets ten minutes: if a small table foretells more, it gets the biggest table that fits, and says so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pyarrow import csv
from rich.console import Console
from rich.table import Table

from hxmlops_evidence.keys import make_keys
from hxmlops_recipe.contract import Contract
from hxmlops_recipe.ladders import Level

ROOT = Path(__file__).resolve().parent.parent
CHURN = ROOT / "workflows/churn/workflow.yml"
PEER = ROOT / ".venv-anonymity/bin/python"
ROWS, PROBE_ROWS = 1_000_000, 20_000
RUNS, LIMIT_S = 3, 600
SIZES = (1_000_000, 500_000, 200_000, 100_000, 50_000, PROBE_ROWS)
K, SUPPRESSION_LIMIT = 5, 0.02
LEVELS: dict[str, list[Any]] = {
    "state": ["value", "division", "region", "all"],
    "area_code": ["value", "all"],
    "account_length": ["value", 50, 100, "all"],
}

# Each program gets the folder as its first argument, and prints its figures as JSON last.
BEGIN = """
import json, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
def end(said):
    work_s = time.perf_counter() - begun
    peak_kb = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(json.dumps({"work_s": work_s, "peak_mb": peak_kb / 1000, "said": said}))
"""
OURS = """
import ibis; ibis.duckdb.connect()
from hxmlops_recipe.contract import Contract
from hxmlops_recipe.recipe import apply, make, open_categories
from hxmlops_recipe.tables import database
from hxmlops_stages.anonymity import Limits, find
from hxmlops_stages.cells import Counted
from hxmlops_stages.keyed_hashes import with_hmac
contract = Contract.from_mapping(json.loads((folder / "contract.json").read_text()))
limits = Limits(contract.protection.k, {}, frozenset(), contract.protection.suppression_limit)
begun = time.perf_counter()
with database(folder / "scratch") as tables:
    raw = tables.read_parquet(folder / "input/data.parquet").select("subscriber_id", *contract.released)
    named = with_hmac(tables, raw, "pseudonym", "subscriber_id", b"k" * 32).drop("subscriber_id")
    counted = Counted(tables, tables.keep("people", named), contract, [])
    choice, _ = find(counted.cells, counted.ladders, limits)
    recipe = make(contract, choice.rules, {name: [] for name in open_categories(contract, choice.rules)})
    released = tables.keep("released", apply(counted.rows_of(choice), recipe | {"pseudonym": True}))
    rows = tables.rows(released.aggregate(rows=released.count()))[0]["rows"]
    levels = ", ".join(f"{name} by {step.level.name}" for name, step in choice.steps.items())
    end(f"{rows} rows released: {levels}")
"""
STAGE = """
import ibis; ibis.duckdb.connect()
from hxmlops_stages import anonymization
from hxmlops_stages.program import Context
spec = {"stage": "anonymization", "workflow": {"id": "churn", "vendor": "vendor", "acceptor": "acceptor"},
        "contract": json.loads((folder / "contract.json").read_text()), "parameters": {}}
(folder / "output").mkdir(exist_ok=True)
begun = time.perf_counter()
end(anonymization.run(Context(spec, folder / "input", folder / "output", folder, "run", "NO")).summary)
"""
HMAC_SQL = """
import ibis; ibis.duckdb.connect()
from hxmlops_recipe.tables import database
from hxmlops_stages.keyed_hashes import with_hmac
begun = time.perf_counter()
with database(folder / "scratch") as tables:
    subjects = tables.read_parquet(folder / "input/data.parquet").select("subscriber_id")
    tables.keep("pseudonyms", with_hmac(tables, subjects, "pseudonym", "subscriber_id", b"k" * 32))
    end("HMAC-SHA256 in SQL")
"""
HMAC_PYTHON = """
import duckdb, hashlib, hmac
begun = time.perf_counter()
subjects = duckdb.sql(f"SELECT subscriber_id::VARCHAR FROM '{folder}/input/data.parquet'").fetchall()
pseudonyms = [hmac.new(b"k" * 32, subject.encode(), hashlib.sha256).hexdigest() for subject, in subjects]
end("HMAC-SHA256 in a list comprehension")
"""
ANJANA = """
import hashlib, hmac
import pandas as pd
from anjana.anonymity import k_anonymity
rows, k, limit = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
data = pd.read_csv(folder / "data.csv", nrows=rows)
ladders = {name: dict(enumerate(levels)) for name, levels in json.loads((folder / "ladders.json").read_text()).items()}
begun = time.perf_counter()
subjects = data["subscriber_id"].astype(str)
data["pseudonym"] = [hmac.new(b"k" * 32, subject.encode(), hashlib.sha256).hexdigest() for subject in subjects]
named_s = time.perf_counter() - begun
released = k_anonymity(data, ["subscriber_id"], list(ladders), k, 100 * limit, ladders)
groups = ", ".join(f"{released[name].nunique()} of {name}" for name in ladders)
end(f"{len(released)} rows released: {groups}; {time.perf_counter() - begun - named_s:.1f} s of it anjana")
"""


def main(rows: int = ROWS) -> None:
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder, rows)
        measured = [
            ("pseudonyms", "Python's hmac", rows, best(HMAC_PYTHON, folder)),
            ("pseudonyms", "ours", rows, best(HMAC_SQL, folder)),
            ("pseudonyms, k-anonymity", *anjana(folder, rows)),
            ("pseudonyms, k-anonymity", "ours", rows, best(OURS, folder)),
            ("the whole stage", "ours", rows, best(STAGE, folder)),
        ]
    table = Table(title=f"k = {K}, {SUPPRESSION_LIMIT:.0%} suppression, {os.cpu_count()} CPUs", title_justify="left")
    for heading in ("work", "program", "rows", "s", "rows/s", "peak memory, MB", "x its peer", "what came out"):
        table.add_column(heading, justify="left" if heading in ("work", "program", "what came out") else "right")
    peer_speed = 0.0
    for work, program, count, figures in measured:
        speed = count / figures["work_s"]
        ratio = f"{speed / peer_speed:.1f}" if program == "ours" else ""
        peer_speed = peer_speed if program == "ours" else speed
        cells = f"{count:,}", f"{figures['work_s']:.2f}", f"{speed:,.0f}", f"{figures['peak_mb']:,.0f}", ratio
        table.add_row(work, program, *cells, figures["said"])
    Console(width=max(console.width, 150)).print(table)


def anjana(folder: Path, rows: int) -> tuple[str, int, dict[str, Any]]:
    """(the peer's name, rows, figures) for all rows, or for as many as LIMIT_S is enough for, by a small table."""

    def anonymised(count: int) -> dict[str, Any]:
        return run(PEER, ANJANA, folder, count, K, SUPPRESSION_LIMIT)

    probe = anonymised(min(rows, PROBE_ROWS))
    for size in (rows, *(size for size in SIZES if size < rows)):
        if size <= PROBE_ROWS:
            return "hmac and anjana", size, probe
        if probe["work_s"] * size / PROBE_ROWS < LIMIT_S:
            try:
                return "hmac and anjana", size, anonymised(size)
            except subprocess.TimeoutExpired:
                continue
    return "hmac and anjana", PROBE_ROWS, probe


def best(program: str, folder: Path) -> dict[str, Any]:
    """The figures of the quickest of RUNS runs, as a machine that others use too wants it."""
    return min(
        (run(sys.executable, program, folder) for _ in range(RUNS)), key=lambda figures: float(figures["work_s"])
    )


def run(python: Path | str, program: str, *arguments: object) -> dict[str, Any]:
    """The figures that the program prints. TimeoutExpired after LIMIT_S."""
    command = [str(python), "-c", BEGIN + program, *map(str, arguments)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, timeout=LIMIT_S, check=True)
    figures: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return figures


def make_data(folder: Path, rows: int) -> None:
    """What the programs read: the table twice, the contract for ours, its ladders as anjana has them."""
    mapping: dict[str, Any] = yaml.safe_load(CHURN.read_text())["contract"]
    for name, levels in LEVELS.items():
        mapping["recipe"]["quasi_identifiers"][name]["levels"] = levels
    mapping["recipe"] |= {"k": K, "suppression_limit": SUPPRESSION_LIMIT, "sensitive": {}, "hidden_share": 0.0001}
    (folder / "contract.json").write_text(json.dumps(mapping))
    contract = Contract.from_mapping(mapping)
    make_keys(folder / "keys")
    (folder / "input").mkdir()

    ladders = contract.protection.quasi_identifiers
    states = list(ladders["state"].levels[1].rule["map"])
    values = {"state": states, "area_code": list(contract.schema.columns["area_code"].values or ())}
    values["account_length"] = list(range(3650))
    peer = {
        name: [[generalised(value, level) for value in values[name]] for level in ladders[name].levels]
        for name in values
    }
    (folder / "ladders.json").write_text(json.dumps(peer))

    draw = np.random.default_rng(20261123)
    columns: dict[str, Any] = {}
    for name, column in contract.schema.columns.items():
        if name == contract.schema.subject:
            columns[name] = np.arange(1, rows + 1)
        elif name == "account_length":
            columns[name] = np.minimum(draw.exponential(900, rows), 3649).astype(np.int64)
        elif column.type == "string":
            categories = values.get(name) or list(column.values or ())
            weights = np.linspace(1, 3, len(categories))
            columns[name] = draw.choice(np.array(categories), rows, p=weights / weights.sum())
        elif column.type == "integer":
            columns[name] = draw.poisson(50, rows)
        else:
            columns[name] = np.round(np.clip(draw.normal(180, 54, rows), 0, None), 1)
    table = pa.table(columns)
    pq.write_table(table, folder / "input/data.parquet", row_group_size=122_880)  # as data_validation leaves it
    csv.write_csv(table, folder / "data.csv")


def generalised(value: Any, level: Level) -> Any:
    if "bin" in level.rule:
        return value // level.rule["bin"] * level.rule["bin"]
    return level.rule["map"][value] if "map" in level.rule else "*" if "all" in level.rule else value


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
