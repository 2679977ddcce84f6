"""The rules that a schema sets for each column, as expressions, all counted in one pass over the table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hxmlops_stages.direct_identifiers import LOOKS

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from hxmlops_recipe.contract import Column
    from hxmlops_recipe.tables import Database

ROW = "hxmlops_row"


@dataclass(frozen=True)
class Rule:
    """A rule for a column; `broken` is true in the rows that break it."""

    column: str
    name: str
    broken: ir.BooleanValue


@dataclass(frozen=True)
class Violation:
    """How many rows break a rule, and the first and the last of them."""

    column: str
    rule: str
    count: int
    rows: tuple[int, ...] = ()
    looks_like: str | None = None

    def __str__(self) -> str:
        what = f"{self.column} {self.rule}" + (f" (looks like {self.looks_like})" if self.looks_like else "")
        rows = f" in {self.count} row{'' if self.count == 1 else 's'}"
        return what if self.rule.endswith("_column") else what + rows


def value_rules(name: str, value: ir.Value, column: Column) -> Iterator[Rule]:
    """The schema's rules for typed values; missing ones break none of them."""
    if column.minimum is not None:
        yield Rule(name, "minimum", value < column.minimum)
    if column.maximum is not None:
        yield Rule(name, "maximum", value > column.maximum)
    if column.values is not None:
        yield Rule(name, "values", value.notin(column.values))
    if column.pattern is not None:
        yield Rule(name, "pattern", ~value.re_search(column.pattern))


def identifier_rule(name: str, value: ir.StringValue) -> Rule:
    """For a column that others will see: no value may look like a direct identifier."""
    broken = value.re_search(next(iter(LOOKS.values())))
    for pattern in list(LOOKS.values())[1:]:
        broken = broken | value.re_search(pattern)
    return Rule(name, "direct_identifier", broken)


def count(tables: Database, table: ir.Table, rules: Iterable[Rule]) -> tuple[int, list[Violation]]:
    """(rows, the broken rules in order). `table` has a column ROW that numbers its rows."""
    rules = list(rules)
    counts = {f"rule{number}": rule.broken.sum() for number, rule in enumerate(rules)}
    found = tables.rows(table.aggregate(rows=table.count(), **counts))[0]
    broken = {number: rule for number, rule in enumerate(rules) if found[f"rule{number}"]}
    ends = {f"first{number}": table[ROW].min(where=rule.broken) for number, rule in broken.items()}
    ends |= {f"last{number}": table[ROW].max(where=rule.broken) for number, rule in broken.items()}
    at = tables.rows(table.aggregate(**ends))[0] if broken else {}
    return found["rows"], [
        Violation(rule.column, rule.name, found[f"rule{number}"], _ends(at[f"first{number}"], at[f"last{number}"]))
        for number, rule in broken.items()
    ]


def count_duplicates(tables: Database, table: ir.Table, columns: Mapping[str, ir.Value]) -> list[Violation]:
    """Values that occur more than once where they may not: {column: its values}."""
    surplus = {name: value.count() - value.nunique() for name, value in columns.items()}
    found = tables.rows(table.aggregate(**surplus))[0] if surplus else {}
    violations = []
    for name, value in columns.items():
        if found[name]:
            groups = table.group_by(value.name("value")).aggregate(
                rows=table.count(), first=table[ROW].min(), last=table[ROW].max()
            )
            groups = groups.filter(groups.rows > 1, groups["value"].notnull())
            at = tables.rows(groups.aggregate(first=groups["first"].min(), last=groups["last"].max()))[0]
            violations.append(Violation(name, "duplicate", found[name], _ends(at["first"], at["last"])))
    return violations


def likely_identifier(tables: Database, table: ir.Table, column: str) -> str | None:
    """What at least half of a text column's values look like, if a direct identifier."""
    value = table[column]
    counts = {f"look{number}": value.re_search(look).sum() for number, look in enumerate(LOOKS.values())}
    found = tables.rows(table.aggregate(values=value.count(), **counts))[0]
    for number, look in enumerate(LOOKS):
        if found["values"] and found[f"look{number}"] * 2 >= found["values"]:
            return look
    return None


def _ends(first: int, last: int) -> tuple[int, ...]:
    return (first,) if first == last else (first, last)
