"""`latest`: the order of versions."""

from itertools import zip_longest

from hypothesis import given, settings
from hypothesis import strategies as st

from hxmlops_sharing.versions import version_key

type Semantic = tuple[tuple[int, int, int], list[str]]

number = st.integers(0, 10**12)
word = st.from_regex(r"[0-9]{0,2}[a-zA-Z-][0-9a-zA-Z-]{0,3}", fullmatch=True)
versions = st.tuples(st.tuples(number, number, number), st.lists(st.one_of(number.map(str), word), max_size=4))


def test_the_order_of_semver_org() -> None:
    ordered = [
        "nightly",
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0",
        "v1.0.1",
        "1.9",
        "1.10.0+build.5",
        "2",
        "10.0.0",
    ]
    keys = [version_key(version) for version in ordered]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


def test_what_counts_as_the_same() -> None:
    assert version_key("1") == version_key("1.0") == version_key("v1.0.0") == version_key("1.0.0+linux")
    assert version_key("nightly") == version_key("2026_11_23") == version_key("1.2.3.4") == ""


@settings(deadline=None)
@given(versions, versions)
def test_keys_sort_as_section_11_of_semver_says(left: Semantic, right: Semantic) -> None:
    one, other = version_key(text(left)), version_key(text(right))
    assert (one < other) == is_below(left, right)
    assert (one > other) == is_below(right, left)


def text(version: Semantic) -> str:
    numbers, pre = version
    return ".".join(map(str, numbers)) + ("-" + ".".join(pre) if pre else "")


def is_below(left: Semantic, right: Semantic) -> bool:
    """Precedence, word by word from the text of the specification."""
    if left[0] != right[0]:
        return left[0] < right[0]
    if not left[1] or not right[1]:
        return bool(left[1]) and not right[1]
    for one, other in zip_longest(left[1], right[1]):
        if one == other:
            continue
        if one is None or other is None:
            return one is None
        if one.isdigit() and other.isdigit():
            return int(one) < int(other)
        if one.isdigit() or other.isdigit():
            return bool(one.isdigit())
        return bool(one < other)
    return False
