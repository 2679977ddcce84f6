"""Testing: the contract's metrics of a model on rows new to it, with bounds, and what a prediction takes.

Reads `model/`, `data.parquet` (released rows), `recipe.json`; leaves `report.json`. The same program tests
on the vendor's holdout and on the acceptor's hidden rows.
"""

from __future__ import annotations

import json
from typing import Any

from hxmlops_evidence.errors import BadInput
from hxmlops_stages import inference, metrics
from hxmlops_stages.examples import examples
from hxmlops_stages.program import Context, Outcome

_SEED = 0  # of the bootstrap: the same model on the same rows gets the same bounds


def run(context: Context) -> Outcome:
    """Test the model. Refused when its answers cannot be used; BadInput when rows are too few for bounds."""
    from hxmlops_recipe.tables import database

    parameters, contract = context.parameters, context.contract
    recipe = json.loads((context.input / "recipe.json").read_bytes())
    with database(context.output / "scratch") as tables:
        rows = examples(tables, tables.read_parquet(context.input / "data.parquet"), contract, recipe)
    if not len(rows.target):
        raise BadInput("data.parquet has no rows to test on")
    model = inference.Model(context.input / "model", contract, rows.features.shape[1])
    resamples = parameters.get("bootstrap", metrics.RESAMPLES)
    try:
        found = metrics.bounds(
            contract["model"]["metrics"], rows.target, model(rows.features), seed=_SEED, resamples=resamples
        )
    except ValueError as problem:
        raise BadInput(f"data.parquet: {problem}") from None
    cost = inference.measure(model, rows.features, parameters.get("latency_rows", inference.CALLS))
    report: dict[str, Any] = {
        "rows": len(rows.target),
        "metrics": found,
        "bootstrap": {"resamples": resamples, "level": metrics.LEVEL, "seed": _SEED},
        "latency_ms": {"p50": cost.latency_ms_p50, "p95": cost.latency_ms_p95, "calls": cost.calls},
        "energy_j_per_1000_inferences": {**cost.energy_j_per_1000._asdict(), "method": "estimated"},
    }
    (context.output / "report.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    said = ", ".join(f"{name} {at['value']:.3f} ({at['lower']:.3f} to {at['upper']:.3f})" for name, at in found.items())
    return Outcome(f"{said} on {len(rows.target)} rows", metrics=report)
