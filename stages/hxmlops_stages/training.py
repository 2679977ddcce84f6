"""Training: the workflow's own `train.py`, run on the features of the released rows.

Reads `data.parquet` (released rows), `recipe.json` and `code/` (with `train.py`). Leaves `model/`,
`metrics.json`, `holdout.parquet` (released rows that `train.py` did not see) and `log.txt` (all that it
printed).

`train.py` knows nothing of us. It is called as `python train.py --data FILE --parameters FILE --output DIR`
and leaves `model.onnx` and `metrics.json` ({name: number}) in DIR. docs/own-workflow.md says the same to its
author.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING, Any

from hxmlops_evidence.errors import BadInput, Refused
from hxmlops_evidence.formats import check_model_format
from hxmlops_stages import confined
from hxmlops_stages.examples import examples
from hxmlops_stages.inference import Model
from hxmlops_stages.program import Context, Outcome

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from hxmlops_recipe.tables import Database

METRICS_FILE = "metrics.json"


def run(context: Context) -> Outcome:
    """Train by `train.py` and look at what it made. Refused when it fails or its model cannot be used."""
    from hxmlops_recipe.tables import database

    parameters, contract, output = context.parameters, context.contract, context.output
    recipe = json.loads((context.input / "recipe.json").read_bytes())
    work = output / "work"
    (work / "data").mkdir(parents=True)
    with database(output / "scratch") as tables:
        rows = tables.read_parquet(context.input / "data.parquet")
        training, holdout = split(tables, rows, parameters["seed"], parameters["holdout_share"])
        learnt_from = examples(tables, training, contract, recipe)
        tables.write_parquet(learnt_from.table, work / "data" / "train.parquet")
        tables.write_parquet(holdout, output / "holdout.parquet")
        counts = {"rows": len(learnt_from.target), "holdout_rows": _count(tables, holdout)}
    context.say("{rows} rows to learn from, {holdout_rows} held out".format(**counts))

    try:
        made = _train(context, work, learnt_from.table.columns)
        metrics = _metrics(made)
        _move(made, output / "model")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    check_model_format(output / "model", allow=[contract["model"]["format"]], allow_pickles=[])
    Model(output / "model", contract, learnt_from.features.shape[1])(learnt_from.features)
    (output / METRICS_FILE).write_text(json.dumps(metrics, indent=1, sort_keys=True) + "\n")
    return Outcome(f"trained on {counts['rows']} rows", metrics={**counts, "declared": metrics})


def split(tables: Database, table: ir.Table, seed: int, holdout_share: float) -> tuple[ir.Table, ir.Table]:
    """Rows to learn from and rows held out (about `holdout_share` of them), each in an order of its own.

    A row's side and place follow from SHA-256 of the seed and the row's content: the same whatever the order of the
    rows, and equal rows stay together, so that none is learnt by heart and then tested on.
    """
    import ibis

    content = [table[name].cast("string").fill_null("\0") for name in sorted(table.columns)]
    digest = ibis.literal("\x1f").join([ibis.literal(str(seed)), *content]).hexdigest("sha256")
    rows = tables.keep("rows_by_digest", table.mutate(digest_of_row=digest).order_by("digest_of_row"))
    held_out = rows.digest_of_row < f"{round(holdout_share * 2**32):08x}"
    sides = rows.filter(~held_out).drop("digest_of_row"), rows.filter(held_out).drop("digest_of_row")
    if not all(_count(tables, side) for side in sides):
        raise BadInput(
            f"{_count(tables, rows)} rows cannot be split by holdout_share {holdout_share}: one side is empty"
        )
    return sides


def _count(tables: Database, table: ir.Table) -> int:
    return int(tables.rows(table.aggregate(rows=table.count()))[0]["rows"])


def _train(context: Context, work: Path, columns: Sequence[str]) -> Path:
    """Run train.py on data/train.parquet, in folders of its own below `work`; answer the folder that it filled."""
    parameters, contract, log = context.parameters, context.contract, context.output / "log.txt"
    code, data, run_in, made = (work / name for name in ("code", "data", "run", "made"))
    shutil.copytree(context.input / "code", code)
    for folder in (run_in, made):
        folder.mkdir()
    script = code / Path(parameters["train"]).name
    if not script.is_file():
        raise BadInput(f"{script.name}: no such file; `train` in the workflow file must name it")
    *features, target = columns
    told = {
        "task": contract["model"]["task"],
        "features": features,
        "target": target,
        "output": contract["model"]["output"],
        "seed": parameters["seed"],
        "parameters": parameters["parameters"],
    }
    (data / "parameters.json").write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")
    command = [sys.executable, "-u", str(script), "--data", str(data / "train.parquet")]
    command += ["--parameters", str(data / "parameters.json"), "--output", str(made)]
    ended = confined.run(
        command,
        folder=run_in,
        environment=_environment(run_in),
        time_limit_s=parameters["time_limit_s"],
        memory_limit_gb=parameters["memory_limit_gb"],
        log=log,
        on_line=context.say,
    )
    _refuse_failure(ended, script.name, parameters, log)
    return made


def _environment(own: Path) -> dict[str, str]:
    """All the environment that train.py gets. One thread: sums in one order, so the same model every time."""
    threads = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB")
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(own),
        "TMPDIR": str(own),
        "PYTHONHASHSEED": "0",
        **{f"{name}_NUM_THREADS": "1" for name in threads},
    }


def _refuse_failure(ended: confined.Ended, name: str, parameters: dict[str, Any], log: Path) -> None:
    see = f"; all it printed is in {log}"
    if ended.timed_out:
        limit = parameters["time_limit_s"]
        raise Refused("training_time", f"{name} did not end within {limit:g} s (time_limit_s) and was stopped{see}")
    if not ended.exit_code:
        return
    if "MemoryError" in ended.last_error or "bad_alloc" in ended.last_error:
        limit = parameters["memory_limit_gb"]
        raise Refused("training_memory", f"{name} needs more than {limit:g} GB (memory_limit_gb){see}")
    how = f"exit code {ended.exit_code}" if ended.exit_code > 0 else signal.Signals(-ended.exit_code).name
    said = f": {ended.last_error}" if ended.last_error else ""
    raise Refused("training_exit", f"{name} failed with {how}{said}{see}")


def _metrics(made: Path) -> dict[str, float]:
    """What train.py says of its own model, as {name: number}."""
    file = made / METRICS_FILE
    wanted = f"train.py must write {METRICS_FILE}, one number for each name"
    if file.is_symlink() or not file.is_file():
        raise Refused("training_metrics", f"{wanted}; there is no such file")
    try:
        metrics = json.loads(file.read_bytes())
    except ValueError:
        raise Refused("training_metrics", f"{wanted}; it is not JSON") from None
    if not isinstance(metrics, dict):
        raise Refused("training_metrics", f"{wanted}; it is no mapping")
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Refused("training_metrics", f"{wanted}; {name} is none")
        if not math.isfinite(value):
            raise Refused("training_metrics", f"{METRICS_FILE}: {name} is {value}")
    return metrics


def _move(made: Path, model: Path) -> None:
    """Take all files but the metrics as the model's. Links are refused: they can bring in others' files."""
    for path in sorted(made.rglob("*")):
        status = path.lstat()
        if not S_ISDIR(status.st_mode) and (not S_ISREG(status.st_mode) or status.st_nlink > 1):
            name = path.relative_to(made)
            raise Refused(
                "training_files", f"{name} is a link or no regular file; train.py must write files of its own"
            )
    (made / METRICS_FILE).unlink()
    if not any(made.iterdir()):
        raise Refused(
            "training_files", "train.py ended well but wrote no model; it must write model.onnx into --output"
        )
    made.rename(model)
