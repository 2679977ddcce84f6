"""What a client asks to be answered: entity tags and byte ranges, as RFC 9110 has them (sections 13 and 14)."""

import re
from collections.abc import Iterable, Sequence

from hxmlops_sharing.problems import Problem

MOST_RANGES = 100
"""Whoever asks for more gets the whole."""

type Range = tuple[int, int]
"""First byte, and the one after the last."""

_ETAG = re.compile(r'(?:^|,)[ \t]*(W/)?("[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?=,|$)')
_SPEC = re.compile(r"(\d{0,100})-(\d{0,100})", re.ASCII)


def lists(headers: Iterable[str], etag: str, *, weak: bool) -> bool:
    """Whether If-Match (strong comparison) or If-None-Match (weak) names this entity tag, or any (`*`)."""
    joined = ", ".join(headers)
    return joined.strip() == "*" or any(tag == etag and (weak or not w) for w, tag in _ETAG.findall(joined))


def parse_ranges(header: str, size: int, *, gap: int = 0) -> list[Range]:
    """The ranges of `size` bytes that a Range header asks for, ascending and apart by more than `gap` bytes.

    Ranges that overlap or are nearer than that become one, so that no byte is asked for twice. Empty for a header
    that is to be ignored: another unit, another form, or too many ranges. Problem 416 when there is nothing in any.
    """
    unit, _, listed = header.partition("=")
    specs = [spec for each in listed.split(",") if (spec := each.strip(" \t"))]
    if unit.strip().lower() != "bytes" or not 0 < len(specs) <= MOST_RANGES:
        return []
    found: list[Range] = []
    for spec in specs:
        match = _SPEC.fullmatch(spec)
        if match is None or spec == "-":
            return []
        first, last = match.groups()
        if first and last and int(last) < int(first):
            return []
        start = int(first) if first else max(0, size - int(last))
        stop = min(int(last) + 1, size) if first and last else size
        if start < stop:
            found.append((start, stop))
    if not found:
        raise Problem(
            416, "range", f"there are {size} bytes, none of them in this range", {"Content-Range": f"bytes */{size}"}
        )
    return _apart(found, gap)


def _apart(ranges: Sequence[Range], gap: int) -> list[Range]:
    apart: list[Range] = []
    for start, stop in sorted(ranges):
        if apart and start <= apart[-1][1] + gap:
            apart[-1] = apart[-1][0], max(apart[-1][1], stop)
        else:
            apart.append((start, stop))
    return apart
