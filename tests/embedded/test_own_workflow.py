"""A use case of somebody else, by the same playbooks: a regression, other columns, a text as subject, nulls."""

from __future__ import annotations

import json
from pathlib import Path

from tests.embedded.lab import PROJECT, ask, laboratory


def test_a_differently_shaped_use_case_runs_without_touching_our_code(tmp_path: Path) -> None:
    with laboratory(tmp_path, PROJECT / "tests" / "own_workflow") as lab:
        lab.play().succeeded()
        report = json.loads((lab.output("mno-staging", "testing") / "report.json").read_text())
        assert set(report["metrics"]) == {"mae", "rmse", "r2"}
        row = {
            "region": ("BYTES", "west"),
            "distance_m": ("INT64", 787),
            "indoor": ("BOOL", False),
            "band_mhz": ("INT64", 3500),
            "rsrp_dbm": ("FP64", -100.9),
            "sinr_db": ("FP64", 8.0),
            "cqi": ("INT64", 8),
            "prb_load": ("FP64", 0.28),
        }
        inputs = [{"name": n, "datatype": kind, "shape": [1], "data": [value]} for n, (kind, value) in row.items()]
        answer = ask(f"http://127.0.0.1:{lab.port + 3}/v2/models/throughput/infer", body={"inputs": inputs})
        scores = {output["name"]: output["data"] for output in answer["outputs"]}
        assert 0 < scores["score"][0] < 200, "Mbit/s"
        assert lab.play().succeeded().changed == 0
