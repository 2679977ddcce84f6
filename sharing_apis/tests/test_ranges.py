"""Ranges and entity tags, held against plain definitions of them."""

import contextlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hxmlops_sharing.problems import Problem
from hxmlops_sharing.ranges import MOST_RANGES, lists, parse_ranges

numbers = st.integers(0, 40)
specs = st.one_of(
    st.tuples(numbers, numbers).map(lambda pair: f"{pair[0]}-{pair[1]}"),
    numbers.map(lambda first: f"{first}-"),
    numbers.map(lambda length: f"-{length}"),
)
tags = st.text("abcé,*", max_size=5).map(lambda text: f'"{text}"')


def positions(spec: str, size: int) -> set[int] | None:
    """The bytes that one range means by RFC 9110, 14.1.2; None when it is invalid."""
    first, last = spec.split("-")
    if not first:
        return set(range(size)[max(0, size - int(last)) :]) if int(last) else set()
    if last and int(last) < int(first):
        return None
    return set(range(int(first), int(last) + 1 if last else size)) & set(range(size))


@settings(deadline=None)
@given(st.lists(specs, min_size=1, max_size=6), st.integers(0, 30), st.integers(0, 5))
def test_every_byte_that_was_asked_for_comes_once(wanted: list[str], size: int, gap: int) -> None:
    meant = [positions(spec, size) for spec in wanted]
    header = "bytes=" + ", ".join(wanted)
    if None in meant:
        assert parse_ranges(header, size, gap=gap) == []
        return
    union = set[int]().union(*(each for each in meant if each))
    if not union:
        with pytest.raises(Problem, match=f"there are {size} bytes") as refused:
            parse_ranges(header, size, gap=gap)
        assert (refused.value.status_code, refused.value.headers) == (416, {"Content-Range": f"bytes */{size}"})
        return
    ranges = parse_ranges(header, size, gap=gap)
    answered = [position for start, stop in ranges for position in range(start, stop)]
    assert len(answered) == len(set(answered))
    assert union <= set(answered) <= set(range(size))
    if gap == 0:
        assert set(answered) == union
    assert all(start < stop for start, stop in ranges)
    assert all(later[0] > earlier[1] + gap for earlier, later in itertools.pairwise(ranges))


@given(st.text(max_size=30))
def test_any_text_is_a_range_or_ignored(text: str) -> None:
    for header in (text, f"bytes={text}"):
        with contextlib.suppress(Problem):
            assert all(0 <= start < stop <= 10 for start, stop in parse_ranges(header, 10))


@pytest.mark.parametrize(
    "header",
    [
        "", "bytes", "bytes=", "bytes=,", "bytes=-", "bytes=--1", "bytes=1", "bytes=1-2-3", "bytes=+1-2", "bytes=1 -2",
        "bytes=0x1-2", "bytes=\u0661-\u0662", "bytes 0-1", "seconds=0-1", "bytes=0-1;5-6", "bytes=" + "1" * 101 + "-",
        "bytes=" + ",".join(["0-0"] * (MOST_RANGES + 1)),
    ],
)  # fmt: skip
def test_other_forms_are_ignored(header: str) -> None:
    assert parse_ranges(header, 10) == []


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Bytes=0-1", [(0, 2)]),
        ("bytes= 0-1 ,\t4-5,", [(0, 2), (4, 6)]),
        ("bytes=-3,0-0", [(0, 1), (7, 10)]),
        ("bytes=0-18446744073709551615", [(0, 10)]),
        ("bytes=99-,0-0", [(0, 1)]),
    ],
)
def test_forms(header: str, expected: list[tuple[int, int]]) -> None:
    assert parse_ranges(header, 10) == expected


@given(st.lists(tags, min_size=1, max_size=4), st.lists(st.booleans(), min_size=4, max_size=4), tags)
def test_entity_tags_may_hold_anything(listed: list[str], weak: list[bool], etag: str) -> None:
    header = [f"W/{tag}" if is_weak else tag for tag, is_weak in zip(listed, weak, strict=False)]
    for lines in ([", ".join(header)], header):
        assert lists(lines, etag, weak=True) == (etag in listed)
        strong = [tag for tag, is_weak in zip(listed, weak, strict=False) if not is_weak]
        assert lists(lines, etag, weak=False) == (etag in strong)


@pytest.mark.parametrize("header", ["", "abc", '"abc', 'w/"abc"', '"abcd"', 'abc"', '"x" "', "'abc'"])
def test_what_is_no_entity_tag_matches_nothing(header: str) -> None:
    assert not lists([header], '"abc"', weak=False)


def test_any() -> None:
    assert lists([" * "], '"abc"', weak=False)
    assert not lists(['*, "x"'], '"abc"', weak=True)
