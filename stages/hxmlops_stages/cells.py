"""From tables to counts and back: the cells that `hxmlops_stages.anonymity` judges."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hxmlops_recipe.contract import PSEUDONYM, Contract
from hxmlops_stages.anonymity import Cells, Choice, Figures, Ints, climb, figures, number

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from hxmlops_recipe.tables import Database

CLASS = "hxmlops_class"
_ROWS, _CELL, _CODE, _EARLIER = "hxmlops_rows", "hxmlops_cell", "code of ", "hxmlops_earlier_"


class Counted:
    """The rows of a table counted by quasi-identifiers, sensitive values and classes in earlier releases."""

    def __init__(self, tables: Database, people: ir.Table, contract: Contract, earlier: Sequence[Path]) -> None:
        """`people` has raw columns and PSEUDONYM; `earlier` are lineages as `lineage` makes them."""
        self._tables = tables
        for index, file in enumerate(earlier):
            there = tables.read_parquet(file)
            there = there.select(there[PSEUDONYM].name("token"), there[CLASS].name(f"{_EARLIER}{index}"))
            people = people.left_join(there, people[PSEUDONYM] == there.token).drop("token")
        self._people = people
        history = [f"{_EARLIER}{index}" for index in range(len(earlier))]
        quasi_identifiers, sensitive = contract.protection.quasi_identifiers, contract.protection.sensitive
        self._keys = [*quasi_identifiers, *sensitive, *history]
        self._counts = tables.keep("cells", _count(people, self._keys))
        found = tables.arrays(_code(self._counts, self._keys))
        self._numbers = found[_CELL]
        rows = found[_ROWS]
        then = [found[_CODE + name] for name in history]
        new = np.all([codes < 0 for codes in then], axis=0) if history else np.ones(len(rows), bool)
        self.cells = Cells(
            rows=rows,
            quasi_identifiers={name: found[_CODE + name] for name in quasi_identifiers},
            sensitive={name: found[_CODE + name] for name in sensitive},
            history=np.where(new, -1, number(then)) if history else np.full(len(rows), -1),
        )
        self.known_subjects = int(rows[~new].sum())
        self.ladders = {name: climb(ladder, *self._values(name)) for name, ladder in quasi_identifiers.items()}

    def _values(self, name: str) -> tuple[list[Any], Ints]:
        """The values of a column in the order of their codes, and how many rows have each."""
        there = self._counts.filter(self._counts[name].notnull())
        groups = there.group_by(there[name].name("value")).aggregate(rows=there[_ROWS].sum()).order_by("value")
        found = self._tables.rows(groups)
        return [row["value"] for row in found], np.array([row["rows"] for row in found], np.int64)

    def rows_of(self, choice: Choice) -> ir.Table:
        """The rows that the choice releases, still raw, with their class in the column CLASS."""
        kept = choice.rows > 0
        chosen = self._tables.bind("chosen", {_CELL: self._numbers[kept], CLASS: choice.classes[kept]})
        cells = self._counts.inner_join(chosen, _CELL)
        cells = cells.select(cells[CLASS], *(cells[name].name(f"key of {name}") for name in self._keys))
        same = [self._people[name].identical_to(cells[f"key of {name}"]) for name in self._keys]
        joined = self._people.inner_join(cells, same)
        return joined.drop(*(f"key of {name}" for name in self._keys))


def lineage(released: ir.Table) -> ir.Table:
    """Who was released in which class: what later releases are judged together with. Never leaves the domain."""
    return released.select(PSEUDONYM, CLASS).order_by(PSEUDONYM)


def measure(tables: Database, released: ir.Table, contract: Contract) -> Figures:
    """k, l and t of a table as it was written."""
    quasi_identifiers, sensitive = contract.protection.quasi_identifiers, contract.protection.sensitive
    keys = [*quasi_identifiers, *sensitive]
    found = tables.arrays(_code(_count(released, keys), keys))
    classes = number([found[_CODE + name] for name in quasi_identifiers])
    return figures(classes, {name: found[_CODE + name] for name in sensitive}, found[_ROWS], ordered(contract))


def unique_share(tables: Database, released: ir.Table) -> float:
    """Share of the rows that no other row equals."""
    groups = released.group_by(released.columns).aggregate(released.count().name(_ROWS))
    found = tables.rows(groups.aggregate(alone=(groups[_ROWS] == 1).sum(), total=groups[_ROWS].sum()))[0]
    return float(found["alone"] / found["total"])


def ordered(contract: Contract) -> frozenset[str]:
    """The sensitive columns whose values are numbers."""
    return frozenset(name for name in contract.protection.sensitive if contract.schema.columns[name].numeric)


def _count(table: ir.Table, keys: Sequence[str]) -> ir.Table:
    """One row for each combination of `keys`: a number for it, how many rows it has, and the keys."""
    import ibis

    counts = table.group_by(keys).aggregate(table.count().name(_ROWS))
    return counts.mutate(ibis.row_number().name(_CELL))


def _code(counts: ir.Table, keys: Sequence[str]) -> ir.Table:
    """The counts with a code in place of each key: the value's place among the column's, from 0; -1 if missing."""
    import ibis

    coded = counts
    for name in keys:
        places = counts.select(counts[name].name("value")).distinct()
        place = ibis.row_number().over(order_by=places["value"].asc(nulls_first=False))
        places = places.mutate(ibis.ifelse(places["value"].isnull(), -1, place).name(_CODE + name))
        coded = coded.inner_join(places, coded[name].identical_to(places["value"])).drop("value", name)
    return coded
