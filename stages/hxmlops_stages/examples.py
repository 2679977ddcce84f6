"""Released rows as what a model learns from and is tested on: float32 features and a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hxmlops_evidence.errors import BadInput

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from hxmlops_recipe.tables import Database


@dataclass(frozen=True)
class Examples:
    """Rows as a lazy `table` of float32, the features in the contract's order and last the target, each by its name;
    and as arrays: `features` [rows, features], `target` 1.0 for the positive class and 0.0 otherwise, or the value.
    """

    table: ir.Table
    features: NDArray[np.float32]
    target: NDArray[np.float64]


def examples(tables: Database, rows: ir.Table, contract: dict[str, Any], recipe: dict[str, Any]) -> Examples:
    """Make examples of released rows, in the order of their table or file (DuckDB keeps it in a projection, see its
    setting preserve_insertion_order). BadInput when a row has no target.
    """
    from hxmlops_recipe.recipe import features

    target, model = contract["schema"]["target"], contract["model"]
    missing = tables.rows(rows.aggregate(missing=rows[target].isnull().sum()))[0]["missing"]
    if missing:
        raise BadInput(f"{target}: {missing} rows have no value; leave such rows out of the release")
    learnt = {"name": target, "column": target}
    if model["task"] == "classification":
        learnt["equals"] = model["output"]["positive"]
    table = features(rows, recipe | {"features": [*recipe["features"], learnt]})
    *columns, values = tables.arrays(table).values()
    return Examples(table, np.column_stack(columns), values.astype(np.float64))
