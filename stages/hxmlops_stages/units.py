"""Figures for people: three significant digits, in the unit that suits the largest of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

_PREFIXES = ((1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))


class Unit(NamedTuple):
    """One unit for all figures of a kind, so that they can be compared at a glance."""

    symbol: str
    size: float

    def __call__(self, value: float) -> str:
        return digits(value / self.size)


def unit_for(values: Iterable[float], symbol: str) -> Unit:
    """The unit in which the largest value is at least 1."""
    largest = max(values, default=0.0)
    for size, prefix in _PREFIXES:
        if largest >= size:
            return Unit(prefix + symbol, size)
    return Unit(symbol, 1.0)


def digits(value: float) -> str:
    """Three significant digits, not below a thousandth."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    if value >= 1:
        return f"{value:.2f}"
    return "<0.001" if 0 < value < 0.0005 else f"{value:.3f}" if value else "0"
