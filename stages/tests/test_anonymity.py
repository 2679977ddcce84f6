"""k, l, t and information loss of small tables, by hand and by brute force; pycanon's are in test_pycanon.py."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hxmlops_recipe.contract import Sensitive
from hxmlops_recipe.ladders import Level, QuasiIdentifier
from hxmlops_stages.anonymity import Cells, Choice, Figures, Limits, climb, figures, find, judge, number

Row = tuple[int, ...]

STATES = {"CA": "Pacific", "OR": "Pacific", "UT": "Mountain"}
VALUE, ALL = Level("value", {"keep": True}), Level("all", {"all": True})


def coded(values: Sequence[Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def measured(rows: Sequence[tuple[Any, ...]], *, ordered: bool = False) -> Figures:
    """Figures of rows (quasi-identifier, ..., sensitive value)."""
    *quasi_identifiers, sensitive = zip(*rows, strict=True)
    classes = number([coded(column) for column in quasi_identifiers])
    names = frozenset({"s"} if ordered else ())
    return figures(classes, {"s": coded(sensitive)}, np.ones(len(rows), np.int64), names)


def test_k_and_l_are_the_least_of_all_classes() -> None:
    found = measured([("a", 1, "x"), ("a", 1, "y"), ("a", 2, "x"), ("a", 2, "x"), ("a", 2, "z")])
    assert (found.k, found.classes, found.l["s"]) == (2, 2, 2)


def test_t_of_categories_is_half_the_sum_of_differences() -> None:
    found = measured([("a", "x"), ("a", "x"), ("b", "y"), ("b", "x")])
    # whole table: x 3/4, y 1/4; class b: x 1/2, y 1/2
    assert found.t["s"] == pytest.approx((abs(1 / 2 - 3 / 4) + abs(1 / 2 - 1 / 4)) / 2)


def test_t_of_numbers_weighs_how_far_they_are() -> None:
    """The salaries of Li et al. (2007), table 3: {3, 4, 5} of 3 to 11 thousand is at a distance of 0.375."""
    salaries = {"first": (3, 4, 5), "second": (6, 11, 8), "third": (7, 9, 10)}
    found = measured([(name, salary) for name, those in salaries.items() for salary in those], ordered=True)
    assert found.t["s"] == pytest.approx(0.375)


def test_information_loss_is_the_normalized_certainty_penalty() -> None:
    numbers = climb(QuasiIdentifier((VALUE, Level("50", {"bin": 50}), ALL)), [0, 49, 200], np.array([1, 1, 2]))
    assert [step.loss for step in numbers] == [0, 50 / 200, 1]
    states = climb(QuasiIdentifier((Level("division", {"map": STATES}),)), ["CA", "OR", "UT"], np.array([1, 1, 2]))
    assert states[0].loss == pytest.approx((2 / 3 + 2 / 3 + 0 + 0) / 4)  # UT stands alone in its group


def test_a_missing_value_is_a_group_of_its_own_until_all() -> None:
    binned, everything = climb(QuasiIdentifier((Level("50", {"bin": 50}), ALL)), [10, 60], np.array([1, 1]))
    assert binned.groups.tolist() == [0, 1, 2]  # the last is for code -1
    assert everything.groups.tolist() == [0, 0, 0]


# A table of one quasi-identifier with values 0 to 3 and a ladder of value, pairs and all.
PAIRS = Level("2", {"bin": 2})


def cells(rows: Sequence[Row]) -> Cells:
    """Cells of rows (quasi-identifiers ..., sensitive value, history)."""
    counted = Counter(rows)
    columns = np.array(list(counted), np.int64).T
    return Cells(
        rows=np.array(list(counted.values()), np.int64),
        quasi_identifiers={f"q{index}": column for index, column in enumerate(columns[:-2])},
        sensitive={"s": columns[-2]},
        history=columns[-1],
    )


def limits(k: int = 2, suppression_limit: float = 0.0, **sensitive: Any) -> Limits:
    return Limits(k, {"s": Sensitive(**sensitive)} if sensitive else {}, frozenset(), suppression_limit)


def chosen(table: Cells, levels: Sequence[Level], wanted: Limits) -> Choice:
    rows = np.bincount(table.quasi_identifiers["q0"], table.rows).astype(np.int64)
    return find(table, {"q0": climb(QuasiIdentifier(tuple(levels)), range(len(rows)), rows)}, wanted)[0]


def test_the_finest_level_that_holds_is_chosen() -> None:
    table = cells([(0, 0, -1), (1, 1, -1), (2, 0, -1), (3, 1, -1)])
    assert chosen(table, [VALUE, PAIRS, ALL], limits(k=2)).rules == {"q0": {"bin": 2}}
    assert chosen(table, [VALUE, PAIRS, ALL], limits(k=3)).rules == {"q0": {"all": True}}


def test_small_classes_are_suppressed_within_the_limit() -> None:
    table = cells([(0, 0, -1)] * 9 + [(1, 0, -1)])
    choice = chosen(table, [VALUE], limits(k=2, suppression_limit=0.1))
    assert choice.holds
    assert choice.suppression_share == pytest.approx(0.1)
    assert choice.rows.tolist() == [9, 0]
    assert not chosen(table, [VALUE], limits(k=2, suppression_limit=0.09)).holds


def test_a_class_of_one_sensitive_value_is_suppressed_for_l() -> None:
    table = cells([(0, 0, -1)] * 5 + [(0, 1, -1)] * 5 + [(1, 0, -1)] * 5)
    assert chosen(table, [VALUE], limits(suppression_limit=0.5)).rows.sum() == 15
    assert chosen(table, [VALUE], limits(suppression_limit=0.5, l=2)).rows.sum() == 10


def test_a_class_far_from_the_whole_is_suppressed_for_t() -> None:
    table = cells([(0, 0, -1)] * 50 + [(0, 1, -1)] * 50 + [(1, 0, -1)] * 1 + [(1, 1, -1)] * 9)
    assert chosen(table, [VALUE], limits(suppression_limit=0.5, l=2)).rows.sum() == 110
    assert chosen(table, [VALUE], limits(suppression_limit=0.5, t=0.2)).rows.sum() == 100


def test_subjects_of_an_earlier_release_are_judged_by_both_classes() -> None:
    """Class 0 has 6 rows; 4 of them were in class 7 before and 2 in class 8: who knows both classes knows 2 rows."""
    table = cells([(0, 0, 7)] * 4 + [(0, 0, 8)] * 2 + [(1, 0, -1)] * 3)
    choice = chosen(table, [VALUE], limits(k=3, suppression_limit=0.3))
    assert choice.rows.tolist() == [4, 0, 3]
    assert choice.joint_k == 4


def test_when_nothing_holds_the_best_is_told() -> None:
    table = cells([(value, 0, -1) for value in range(4)] + [(0, 0, -1)])
    choice = chosen(table, [VALUE, PAIRS], limits(k=3))
    assert not choice.holds
    assert choice.rules == {"q0": {"bin": 2}}
    assert choice.suppression_share == pytest.approx(2 / 5)


TABLES = st.lists(
    st.tuples(st.integers(-1, 3), st.integers(0, 3), st.integers(0, 2), st.integers(-1, 1)), min_size=1, max_size=40
)
LIMITS = st.builds(
    limits,
    k=st.integers(2, 4),
    suppression_limit=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
    l=st.sampled_from([None, 2, 3]),
    t=st.sampled_from([None, 0.1, 0.3, 0.6]),
)


@settings(max_examples=100, deadline=None)
@given(rows=TABLES, wanted=LIMITS, ordered=st.booleans())
def test_whatever_is_chosen_holds_and_nothing_finer_does(rows: list[Row], wanted: Limits, ordered: bool) -> None:
    wanted = Limits(wanted.k, wanted.sensitive, frozenset({"s"} if ordered else ()), wanted.suppression_limit)
    table = cells(rows)
    ladders = {}
    for name, codes in table.quasi_identifiers.items():
        by_code = np.bincount(codes[codes >= 0], table.rows[codes >= 0], minlength=4).astype(np.int64)
        ladders[name] = climb(QuasiIdentifier((VALUE, PAIRS, ALL)), range(4), np.maximum(by_code, 1))
    choice, tried = find(table, ladders, wanted)
    released = [
        (group, *row)
        for row, group, left in zip(Counter(rows), choice.classes, choice.rows, strict=True)
        for _ in range(left)
    ]
    assert len(released) == len(rows) - round(choice.suppression_share * len(rows))
    assert choice.holds == (bool(released) and len(rows) - len(released) <= wanted.suppression_limit * len(rows) + 1e-9)
    assert_holds(released, wanted)
    loss = sum(step.loss for step in choice.steps.values())
    for first in ladders["q0"]:
        for second in ladders["q1"]:
            other = judge(table, {"q0": first, "q1": second}, wanted)
            if choice.holds and first.loss + second.loss < loss - 1e-12:
                assert not other.holds
            if not choice.holds:
                assert other.suppression_share >= choice.suppression_share
    assert tried <= 9


def assert_holds(released: list[tuple[int, ...]], wanted: Limits) -> None:
    """Count by brute force, with loops: rows are (class, quasi-identifiers ..., sensitive value, history)."""
    classes: dict[int, list[int]] = defaultdict(list)
    for group, *_, value, _history in released:
        classes[group].append(value)
    everyone = [row[-2] for row in released]
    limit = wanted.sensitive["s"] if wanted.sensitive else Sensitive()
    for values in classes.values():
        assert len(values) >= wanted.k
        assert len(set(values)) >= (limit.l or 1)
        assert distance(values, everyone, ordered=bool(wanted.ordered)) <= (limit.t or 1) + 1e-9
    joint = Counter((group, history) for group, *_, history in released if history >= 0)
    assert all(count >= wanted.k for count in joint.values())


def distance(values: list[int], everyone: list[int], *, ordered: bool) -> float:
    occurring = sorted(set(everyone))
    gaps = [values.count(v) / len(values) - everyone.count(v) / len(everyone) for v in occurring]
    if not ordered:
        return sum(map(abs, gaps)) / 2
    return sum(abs(sum(gaps[: end + 1])) for end in range(len(gaps))) / max(len(gaps) - 1, 1)


def test_columns_of_very_many_values_are_combined_without_overflow() -> None:
    wide = np.array([2**40, 0, 2**40, 5])
    assert number([wide, wide, wide]).tolist() == [2, 0, 2, 1]
