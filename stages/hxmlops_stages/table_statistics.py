"""Statistics of a released table, small enough to publish, and the check that a received table has them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from hxmlops_recipe.tables import Database

MOST_CATEGORIES = 100
# Sums over millions of floats depend on the order of addition in their last digits: keep what does not.
DIGITS = 6


def describe(tables: Database, table: ir.Table, *, at_least: int) -> dict[str, Any]:
    """{"rows", "columns": {name: {"nulls", "distinct", and "mean", "standard_deviation" or "counts"}}}.

    Values that fewer than `at_least` rows have are not counted out, and there is no minimum or maximum: the
    statistics are published, and an extreme belongs to one person.
    """
    figures = {"rows": table.count()}
    for number, name in enumerate(table.columns):
        column = table[name]
        figures |= {f"nulls{number}": column.isnull().sum(), f"distinct{number}": column.nunique()}
        if column.type().is_numeric():
            figures |= {f"mean{number}": column.mean(), f"deviation{number}": column.std(how="pop")}
    found = tables.rows(table.aggregate(**figures))[0]
    columns = {}
    for number, name in enumerate(table.columns):
        about = {"nulls": found[f"nulls{number}"] or 0, "distinct": found[f"distinct{number}"]}
        if table[name].type().is_numeric():
            if found[f"mean{number}"] is not None:
                about |= {
                    "mean": rounded(found[f"mean{number}"]),
                    "standard_deviation": rounded(found[f"deviation{number}"]),
                }
        elif about["distinct"] <= MOST_CATEGORIES:
            about["counts"] = _counts(tables, table, name, at_least)
        columns[name] = about
    return {"rows": found["rows"], "columns": columns}


def differences(statistics: Mapping[str, Any], stated: Mapping[str, Any]) -> list[str]:
    """Where a table's statistics differ from the stated ones: "rows", or column and figure."""
    found = [] if statistics["rows"] == stated["rows"] else ["rows"]
    for name, about in stated["columns"].items():
        here = statistics["columns"].get(name, {})
        for figure, value in about.items():
            same = here.get(figure) == value
            if isinstance(value, float) and isinstance(here.get(figure), int | float):
                same = math.isclose(here[figure], value, rel_tol=10 ** (2 - DIGITS), abs_tol=1e-12)
            if not same:
                found.append(f"{name} {figure}")
    return found


def _counts(tables: Database, table: ir.Table, name: str, at_least: int) -> dict[str, int]:
    column = table[name].cast("string")
    groups = table.group_by(column.name("value")).aggregate(rows=table.count())
    groups = groups.filter(groups["value"].notnull(), groups["rows"] >= at_least).order_by("value")
    return {group["value"]: group["rows"] for group in tables.rows(groups)}


def rounded(value: float) -> float:
    """To the digits that a figure in a report has."""
    return float(f"{value:.{DIGITS}g}")
