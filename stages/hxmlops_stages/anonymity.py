"""How anonymous a table is, and the finest generalisation that is anonymous enough. Pure arithmetic on counts.

A *class* is the set of rows that share their generalised quasi-identifiers.

- k: size of the smallest class (Sweeney, "k-anonymity", 2002).
- l: fewest distinct values of a sensitive column in a class (distinct l-diversity; Machanavajjhala et al., 2007).
- t: greatest earth mover's distance between a sensitive column's distribution in a class and in the whole table, as
  Li, Li and Venkatasubramanian ("t-closeness", 2007) define it: with the equal distance for categories, where it is
  half the sum of |q - p|, and with the ordered distance for numbers, where it is the sum of |Q - P| of the cumulative
  distributions over the m occurring values, divided by m - 1. pycanon computes the same.
- information loss: the normalized certainty penalty (Xu et al., "Utility-based anonymization using local recoding",
  2006), averaged over rows: for a number the width of its bin / the column's range; for a category 0 if it stands
  alone, else the number of values in its group / the number of values in the column; 1 when nothing is left.

The search is over full-domain generalisations (Samarati, 2001): one level for each column. Losses are known without
looking at classes, so combinations are tried from the least loss upwards, and the first that holds is the finest.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hxmlops_recipe.contract import Sensitive
from hxmlops_recipe.ladders import Level, QuasiIdentifier, Rule

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_TOLERANCE = 1e-12
_SPARSE = 8  # so many times more room than numbers: sorting them is quicker than looking at all the room


@dataclass(frozen=True)
class Cells:
    """Rows counted by all that matters: one entry for each combination that occurs.

    Codes number a column's values in their order, -1 is a missing value. `history` numbers the combinations of classes
    in which earlier releases had a subject; it is -1 for subjects that were in none.
    """

    rows: Ints
    quasi_identifiers: Mapping[str, Ints]
    sensitive: Mapping[str, Ints]
    history: Ints


@dataclass(frozen=True)
class Limits:
    """What must hold. `ordered` names the sensitive columns whose values are numbers."""

    k: int
    sensitive: Mapping[str, Sensitive]
    ordered: frozenset[str]
    suppression_limit: float


@dataclass(frozen=True)
class Step:
    """A level of a column with the data in view: the group of each code (last: of -1), and the loss, 0 to 1."""

    level: Level
    groups: Ints
    loss: float


@dataclass(frozen=True)
class Choice:
    """A combination of levels, and which cells are released in which class. `rows` is 0 for suppressed cells."""

    steps: Mapping[str, Step]
    classes: Ints
    rows: Ints
    suppression_share: float
    joint_k: int | None
    holds: bool

    @property
    def rules(self) -> dict[str, Rule]:
        return {name: step.level.rule for name, step in self.steps.items()}


@dataclass(frozen=True)
class Figures:
    """k, and l and t by sensitive column, of a table as it is."""

    k: int
    classes: int
    l: Mapping[str, int]  # noqa: E741  (the literature's letter)
    t: Mapping[str, float]


def climb(ladder: QuasiIdentifier, values: Sequence[Any], rows: Ints) -> list[Step]:
    """The levels of a column, given its sorted values without the missing one and how many rows have each."""
    return [_step(level, values, rows) for level in ladder.levels]


def _step(level: Level, values: Sequence[Any], rows: Ints) -> Step:
    count = len(values)
    rule = level.rule
    if "all" in rule:
        return Step(level, np.zeros(count + 1, np.int64), float(count > 1))
    if "bin" in rule:
        numbers = np.asarray(values, np.float64)
        _, groups = np.unique(np.floor(numbers / rule["bin"]), return_inverse=True)
        span = float(np.ptp(numbers)) if count else 0.0
        penalty = np.full(count, min(1.0, rule["bin"] / span) if span else 0.0)
    elif "map" in rule:
        _, groups = np.unique([rule["map"][str(value)] for value in values], return_inverse=True)
        size = np.bincount(groups, minlength=1)[groups]
        penalty = np.where(size > 1, size / max(count, 1), 0.0)
    else:
        groups, penalty = np.arange(count), np.zeros(count)
    loss = float(np.average(penalty, weights=rows)) if count else 0.0
    return Step(level, np.append(groups, count).astype(np.int64), loss)


def find(cells: Cells, ladders: Mapping[str, Sequence[Step]], limits: Limits) -> tuple[Choice, int]:
    """(the finest combination that holds, how many were tried).

    When none holds, the one that would suppress least, with `holds` false.
    """
    combinations = [dict(zip(ladders, steps, strict=True)) for steps in itertools.product(*ladders.values())]
    combinations.sort(key=lambda steps: sum(step.loss for step in steps.values()))  # stable: finer levels come first
    best: Choice | None = None
    for tried, steps in enumerate(combinations, 1):
        choice = judge(cells, steps, limits)
        if choice.holds:
            return choice, tried
        if best is None or choice.suppression_share < best.suppression_share:
            best = choice
    if best is None:
        raise ValueError("there is no combination of levels to try")
    return best, len(combinations)


def judge(cells: Cells, steps: Mapping[str, Step], limits: Limits) -> Choice:
    """Generalise by `steps` and suppress what does not hold: whole classes, and small overlaps with earlier releases.

    Suppressing changes the table that t compares with, and a class that lost rows may break its limits, hence the
    repetition. It ends, for each turn suppresses something.
    """
    classes = number([step.groups[cells.quasi_identifiers[name]] for name, step in steps.items()])
    joint = np.where(cells.history >= 0, number([cells.history, classes]), -1)
    rows = cells.rows.copy()
    while True:
        wrong = _small(classes, rows, limits.k) | _small(joint, rows, limits.k)
        for name, limit in limits.sensitive.items():
            if limit.l is not None:
                wrong |= (_distinct(classes, cells.sensitive[name], rows) < limit.l)[classes]
        if not (wrong & (rows > 0)).any():
            for name, limit in limits.sensitive.items():
                if limit.t is not None:
                    far = _distances(classes, cells.sensitive[name], rows, ordered=name in limits.ordered)
                    wrong |= (far > limit.t + _TOLERANCE)[classes]
            if not (wrong & (rows > 0)).any():
                break
        rows[wrong] = 0
    share = 1 - float(rows.sum() / cells.rows.sum())
    overlaps = np.bincount(joint[joint >= 0], rows[joint >= 0])
    joint_k = int(overlaps[overlaps > 0].min()) if (overlaps > 0).any() else None
    holds = bool(rows.any()) and share <= limits.suppression_limit + _TOLERANCE
    return Choice(dict(steps), classes, rows, share, joint_k, holds)


def figures(classes: Ints, sensitive: Mapping[str, Ints], rows: Ints, ordered: frozenset[str]) -> Figures:
    """k, l and t of a table that is not empty: by cell its class, codes of sensitive values and number of rows."""
    sizes = np.bincount(classes, rows)
    there = sizes > 0
    return Figures(
        k=int(sizes[there].min()),
        classes=int(there.sum()),
        l={name: int(_distinct(classes, codes, rows)[there].min()) for name, codes in sensitive.items()},
        t={
            name: float(_distances(classes, codes, rows, ordered=name in ordered).max())
            for name, codes in sensitive.items()
        },
    )


def number(codes: Sequence[Ints]) -> Ints:
    """One number for each combination of codes (-1 and above), in their order from 0."""
    combined, room = np.zeros(len(codes[0]), np.int64), 1
    for each in codes:
        width = int(each.max(initial=0)) + 2
        if room * width >= np.iinfo(np.int64).max:
            combined, room = _dense(combined, room), len(combined)
        combined, room = combined * width + each + 1, room * width
    return _dense(combined, room)


def _dense(numbers: Ints, room: int) -> Ints:
    """The same numbers, all below `room`, without gaps."""
    if room > _SPARSE * len(numbers):
        return np.unique(numbers, return_inverse=True)[1].astype(np.int64)
    occurs = np.zeros(room, np.int64)
    occurs[numbers] = 1
    places: Ints = (np.cumsum(occurs) - 1)[numbers]
    return places


def _small(groups: Ints, rows: Ints, k: int) -> NDArray[np.bool_]:
    """For each cell, whether its group has rows but fewer than k. A group of -1 is none."""
    grouped = groups >= 0
    small = np.zeros(len(groups), bool)
    small[grouped] = (np.bincount(groups[grouped], rows[grouped]) < k)[groups[grouped]]
    return small


def _pairs(classes: Ints, codes: Ints, rows: Ints) -> tuple[Ints, Ints, Floats]:
    """(class, value, rows) of the pairs that have rows, sorted; values numbered among those that occur."""
    there = rows > 0
    _, values = np.unique(codes[there], return_inverse=True)
    width = int(values.max(initial=0)) + 1
    pairs, at = np.unique(classes[there] * width + values, return_inverse=True)
    return pairs // width, pairs % width, np.bincount(at, rows[there], minlength=len(pairs)).astype(np.float64)


def _distinct(classes: Ints, codes: Ints, rows: Ints) -> Ints:
    """Number of distinct values in each class."""
    of_class, _, _ = _pairs(classes, codes, rows)
    return np.bincount(of_class, minlength=int(classes.max(initial=-1)) + 1).astype(np.int64)


def _distances(classes: Ints, codes: Ints, rows: Ints, *, ordered: bool) -> Floats:
    """Earth mover's distance of each class from the whole table, 0 for a class without rows."""
    count = int(classes.max(initial=-1)) + 1
    of_class, values, pair_rows = _pairs(classes, codes, rows)
    if not len(values):
        return np.zeros(count)
    share = pair_rows / np.bincount(of_class, pair_rows, minlength=count)[of_class]
    overall = np.bincount(values, pair_rows) / pair_rows.sum()
    if not ordered:
        return np.bincount(of_class, np.maximum(share - overall[values], 0), minlength=count)
    m = len(overall)
    if m == 1:
        return np.zeros(count)
    # |Q - P| summed over all values: Q is constant from one occurring value of the class to the next, P never falls,
    # so each such stretch is two differences of the running sum of P, before and after P passes Q.
    cumulative = np.minimum(np.cumsum(overall), 1.0)
    running = np.concatenate([[0.0], np.cumsum(cumulative)])
    first = np.concatenate([[True], of_class[1:] != of_class[:-1]])
    start, end = values, np.where(np.append(first[1:], True), m, np.append(values[1:], m))
    level = np.cumsum(share)
    level -= (level - share)[np.maximum.accumulate(np.where(first, np.arange(len(first)), 0))]
    turn = np.clip(np.searchsorted(cumulative, level), start, end)
    stretches = level * (2 * turn - start - end) + running[start] + running[end] - 2 * running[turn]
    before = np.where(first, running[start], 0.0)  # where the class has no value yet, Q = 0
    return np.bincount(of_class, stretches + before, minlength=count) / (m - 1)
