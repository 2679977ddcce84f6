"""Ladders of generalisation: how coarse a quasi-identifier may become, finest step first.

A step ("level") is `value` (as it is), a number (the width of bins), the name of a hierarchy (groups of
values) or `all` (one group). A chosen level becomes a rule of the concrete recipe: {"keep": true}, {"bin":
50}, {"map": {raw: group}} or {"all": true}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hxmlops_recipe.checks import Checked, fail, nearest

VALUE, ALL = "value", "all"
Rule = dict[str, Any]


@dataclass(frozen=True)
class Level:
    """One step of a ladder: its name in the contract and the recipe's rule for it."""

    name: str
    rule: Rule


@dataclass(frozen=True)
class QuasiIdentifier:
    """The levels of a column, finest first."""

    levels: tuple[Level, ...]

    @property
    def has_hierarchy(self) -> bool:
        return any("map" in level.rule for level in self.levels)


def read_ladder(part: Checked, kind: str, values: Sequence[str | int] | None) -> QuasiIdentifier:
    """Check the ladder of a column of type `kind`, with its declared `values`. Raises ValueError."""
    part.keys(required=("levels",), optional=("hierarchy",))
    hierarchies = part.mapping("hierarchy") if "hierarchy" in part.value else Checked({}, f"{part.path}.hierarchy")
    if hierarchies.value and kind == "number":
        fail(hierarchies.path, "a number has no hierarchy of values; use widths of bins as levels")
    levels: list[Level] = []
    finer: dict[str, list[str]] = {}
    path = f"{part.path}.levels"
    for name in part.sequence("levels"):
        if name == VALUE:
            rule: Rule = {"keep": True}
        elif name == ALL:
            rule = {"all": True}
        elif isinstance(name, int | float) and not isinstance(name, bool):
            rule = {"bin": _width(path, name, kind)}
        elif name in hierarchies.value:
            finer = _groups(hierarchies.mapping(name), finer, values)
            rule = {"map": {raw: group for group, members in finer.items() for raw in members}}
        else:
            known = (VALUE, ALL, *hierarchies.value)
            fail(
                path,
                f"{name!r} is neither a width of bins nor one of {', '.join(known)}{nearest(name, known)}",
            )
        if any(level.rule == rule for level in levels):
            fail(path, f"{name} stands there twice")
        levels.append(Level(str(name), rule))
    if not levels:
        fail(path, "name at least one")
    unused = [name for name in hierarchies.value if name not in [level.name for level in levels]]
    if unused:
        fail(f"{hierarchies.path}.{unused[0]}", "is not among the levels")
    return QuasiIdentifier(tuple(levels))


def _width(path: str, width: float, kind: str) -> float:
    if kind not in ("integer", "number"):
        fail(path, f"a {kind} has no bins; use a hierarchy")
    if not 0 < width < float("inf") or (kind == "integer" and width != int(width)):
        fail(path, f"{width} is no width of bins for a column of type {kind}")
    return int(width) if kind == "integer" else width


def _groups(part: Checked, finer: Mapping[str, list[str]], values: Sequence[str | int] | None) -> dict[str, list[str]]:
    """{group: raw values, as texts}; a member may name a group of the finer hierarchy before this one."""
    groups: dict[str, list[str]] = {}
    seen: dict[str, str] = {}
    for group in part.value:
        members: list[str] = []
        for member in part.sequence(group):
            if not isinstance(member, str | int) or isinstance(member, bool):
                fail(f"{part.path}.{group}", f'{member!r} must be a string; quote it in YAML: "{member}"')
            members += finer.get(str(member), [str(member)])
        for raw in members:
            if raw in seen:
                fail(f"{part.path}.{group}", f"{raw} is in {seen[raw]} as well")
            seen[raw] = group
        groups[group] = members
    missing = [str(value) for value in values or () if str(value) not in seen]
    if missing:
        fail(part.path, f"{missing[0]} of the schema's values is in no group")
    return groups
