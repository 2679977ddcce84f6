"""The concrete recipe: how raw columns become released columns, and those become a model's features.

A recipe is made once, by the anonymization stage, from the contract and the levels that were found:

    {"schema_version": "1.0", "drop": ["subscriber_id"], "pseudonym": false,
     "columns": {"state": {"map": {"CA": "Pacific", ...}}, "account_length": {"bin": 50},
                 "churn": {"keep": true}},
     "features": [{"name": "state=Pacific", "column": "state", "equals": "Pacific"},
                  {"name": "account_length", "column": "account_length"}]}

`apply` and `features` are Ibis expressions, for whichever backend the table lives on; `RowTransformer` runs
these same expressions on the rows of a request. A bin is named by its lower bound; `all` becomes "*".
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hxmlops_recipe.checks import nearest
from hxmlops_recipe.contract import NUMBER, PSEUDONYM, Column, Contract, read_columns
from hxmlops_recipe.ladders import Rule

if TYPE_CHECKING:
    import duckdb
    import ibis.expr.types as ir
    import numpy as np
    import pyarrow as pa

SCHEMA_VERSION = "1.0"
ANY = "*"
# Ibis names of the contract's types.
IBIS_TYPES = {"integer": "int64", "number": "float64", "string": "string", "boolean": "boolean"}
Recipe = Mapping[str, Any]


def make(contract: Contract, levels: Mapping[str, Rule], seen: Mapping[str, Sequence[str | int]]) -> dict[str, Any]:
    """Make the recipe from the chosen level of each quasi-identifier.

    `seen`: the categories of released columns that neither the contract nor a hierarchy lists
    (`open_categories`). A column that became `all` tells a model nothing and yields no feature.
    """
    rules = {name: dict(levels.get(name, {"keep": True})) for name in contract.released}
    features: list[dict[str, Any]] = []
    for name, encoding in contract.model.features.items():
        if "all" in rules[name]:
            continue
        if encoding == NUMBER:
            features.append({"name": name, "column": name})
            continue
        categories = _categories(contract.schema.columns[name], rules[name])
        features += [
            {"name": f"{name}={value}", "column": name, "equals": value}
            for value in (seen[name] if categories is None else categories)
        ]
    return {
        "schema_version": SCHEMA_VERSION,
        "drop": list(contract.protection.drop),
        "columns": rules,
        "pseudonym": contract.protection.pseudonym,
        "features": features,
    }


def open_categories(contract: Contract, levels: Mapping[str, Rule]) -> list[str]:
    """Released columns whose categories only the data can tell."""
    return [
        name
        for name, encoding in contract.model.features.items()
        if encoding != NUMBER and _categories(contract.schema.columns[name], levels.get(name, {"keep": True})) is None
    ]


def _categories(column: Column, rule: Rule) -> list[str | int] | None:
    if "all" in rule:
        return []
    if "map" in rule:
        return sorted(set(rule["map"].values()))
    if "keep" in rule and column.values is not None:
        return sorted(column.values)
    return None


def apply(table: ir.Table, recipe: Recipe) -> ir.Table:
    """Raw columns -> released columns, in the table's order; rows stay. A pseudonym passes if the recipe
    keeps it.
    """
    passing = [PSEUDONYM] if recipe["pseudonym"] and PSEUDONYM in table.columns else []
    released = [
        _released(table[name], recipe["columns"][name]).name(name)
        for name in table.columns
        if name in recipe["columns"]
    ]
    return table.select(*passing, *released)


def _released(column: ir.Column, rule: Rule) -> ir.Value:
    import ibis

    if "bin" in rule:
        width = rule["bin"]
        lower = (column / width).floor() * width
        return lower.cast("int64") if column.type().is_integer() else lower.cast("float64")
    if "map" in rule:
        groups: dict[str, list[str]] = {}
        for raw, group in rule["map"].items():
            groups.setdefault(group, []).append(raw)
        text = column.cast("string")
        return ibis.cases(*((text.isin(members), group) for group, members in groups.items()))
    if "all" in rule:
        return ibis.literal(ANY)
    return column


def features(table: ir.Table, recipe: Recipe) -> ir.Table:
    """Released columns -> float32 columns in the recipe's order. A missing number is NaN, a missing category
    all 0.
    """
    import ibis

    columns = []
    for feature in recipe["features"]:
        column = table[feature["column"]]
        if "equals" in feature:
            value = (column == feature["equals"]).fill_null(False).cast("float32")
        else:
            value = column.cast("float32").fill_null(ibis.literal(float("nan"), "float32"))
        columns.append(value.name(feature["name"]))
    return table.select(columns)


def released_columns(recipe: Recipe, columns: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Declarations of the released columns, {name: {type, ...}}, from those of the raw ones."""
    result: dict[str, dict[str, Any]] = {}
    if recipe["pseudonym"]:
        result[PSEUDONYM] = {"type": "string", "pattern": "^[0-9a-f]{64}$", "unique": True}
    for name, raw in columns.items():
        rule = recipe["columns"].get(name)
        if rule is None:
            continue
        about = {key: raw[key] for key in ("description", "nullable") if key in raw}
        if "map" in rule:
            result[name] = about | {"type": "string", "values": sorted(set(rule["map"].values()))}
        elif "all" in rule:
            result[name] = about | {"type": "string", "values": [ANY], "nullable": False}
        elif "bin" in rule:
            bounds = {key: raw[key] // rule["bin"] * rule["bin"] for key in ("minimum", "maximum") if key in raw}
            result[name] = about | {key: raw[key] for key in ("type", "unit") if key in raw} | bounds
        else:
            result[name] = {key: value for key, value in raw.items() if key != "unique"}
    return result


_ROWS = "hxmlops_rows"


class RowTransformer:
    """Raw columns of a request -> the model's float32 input. Safe to call from many threads."""

    def __init__(self, recipe: Recipe, columns: Mapping[str, Mapping[str, Any]]) -> None:
        """`columns`: the contract's declarations of the raw columns. Raises ValueError (one line)."""
        import duckdb
        import ibis

        declared = read_columns(dict(columns))
        used = {feature["column"] for feature in recipe["features"]}
        for name in used:
            if name not in declared:
                raise ValueError(f"recipe: its column {name} is not in the schema")
        self.feature_names = [feature["name"] for feature in recipe["features"]]
        self._known = list(declared)
        self._used = {name: column for name, column in declared.items() if name in used}
        rows = ibis.table({name: IBIS_TYPES[column.type] for name, column in self._used.items()}, name=_ROWS)
        sql = str(ibis.to_sql(features(apply(rows, recipe), recipe), dialect="duckdb"))
        self._database = duckdb.connect(config={"threads": 1})
        self._statement = self._database.extract_statements(sql)[0]
        self._of_thread = threading.local()

    def __call__(self, columns: Mapping[str, Sequence[Any]]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        """Answer a float32 array [rows, features]; columns without a feature are ignored.

        Raises ValueError (one line, without a value) for a missing or unknown column, a wrong type, a missing
        value in a column that is not nullable, and columns of different lengths.
        """
        import numpy as np

        rows = self._typed(columns)
        if not rows.num_rows:
            return np.empty((0, len(self.feature_names)), np.float32)
        cursor = self._cursor()
        cursor.register(_ROWS, rows)
        try:
            found = cursor.execute(self._statement).fetchnumpy()
        finally:
            cursor.unregister(_ROWS)
        return np.column_stack([np.asarray(found[name], np.float32) for name in self.feature_names])

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        """This thread's own connection. Without optimizer: its plans are no faster here, making them takes
        longer.
        """
        if not hasattr(self._of_thread, "cursor"):
            self._of_thread.cursor = self._database.cursor()
            self._of_thread.cursor.execute("PRAGMA disable_optimizer")
        cursor: duckdb.DuckDBPyConnection = self._of_thread.cursor
        return cursor

    def _typed(self, columns: Mapping[str, Sequence[Any]]) -> pa.Table:
        import pyarrow as pa

        for name in columns:
            if name not in self._known:
                raise ValueError(f"column {name}: unknown{nearest(name, self._known)}")
        arrays = {}
        for name, column in self._used.items():
            if name not in columns:
                raise ValueError(f"column {name}: missing")
            arrays[name] = _array(name, columns[name], column.type)
            if arrays[name].null_count and not column.nullable:
                raise ValueError(f"column {name}: a value is missing")
        lengths = {len(array) for array in arrays.values()}
        if len(lengths) > 1:
            raise ValueError(f"columns: of different lengths, {min(lengths)} to {max(lengths)} rows")
        return pa.table(arrays)


def _array(name: str, values: Sequence[Any], kind: str) -> pa.Array:
    """An Arrow array of the declared type; only integers may become numbers, and whole numbers integers."""
    import pyarrow as pa

    target = {"integer": pa.int64(), "number": pa.float64(), "string": pa.string(), "boolean": pa.bool_()}[kind]
    try:
        array = pa.array(values)
        found = array.type
        numeric = pa.types.is_integer(found) or pa.types.is_floating(found)
        text = pa.types.is_string(found) or pa.types.is_binary(found)
        right = {
            "integer": numeric,
            "number": numeric,
            "string": text,
            "boolean": pa.types.is_boolean(found),
        }[kind]
        if right or pa.types.is_null(found):
            return array if found == target else array.cast(target)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"column {name}: not a list of values of type {kind}")
