"""Where on a waterfall's time axis things are, idle gaps between them cut short."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400)
_GAP_S, _GAP_SHARE = 5.0, 0.2


class Timeline:
    """Maps seconds to 0..100, for spans of (start, end).

    A gap longer than 5 s and a fifth of all the time that something ran is drawn 2.5 wide, less if there are
    many.
    """

    def __init__(self, spans: Sequence[tuple[float, float]]) -> None:
        self.busy: list[tuple[float, float]] = []
        active_s = sum(end - start for start, end in spans)
        for start, end in sorted(spans):
            if self.busy and start - self.busy[-1][1] <= max(_GAP_S, _GAP_SHARE * active_s):
                self.busy[-1] = (self.busy[-1][0], max(self.busy[-1][1], end))
            else:
                self.busy.append((start, end))
        self._gap = min(2.5, 30 / max(1, len(self.busy)))
        self._length_s = sum(end - start for start, end in self.busy) or 1.0
        self._scale = (100 - self._gap * (len(self.busy) - 1)) / self._length_s

    def at(self, time_s: float) -> float:
        """Place of a time within one of the spans."""
        place = 0.0
        for start, end in self.busy:
            if time_s <= end:
                return place + max(0.0, time_s - start) * self._scale
            place += (end - start) * self._scale + self._gap
        return 100.0

    @property
    def gaps(self) -> list[tuple[float, float, float]]:
        """(place, width, seconds) of what was cut short."""
        return [(self.at(a[1]), self._gap, b[0] - a[1]) for a, b in pairwise(self.busy)]

    @property
    def step_s(self) -> float:
        """Distance of grid lines: at most ten of them."""
        return next((step for step in _STEPS_S if self._length_s / step <= 10), self._length_s)

    @property
    def grid(self) -> list[tuple[float, float]]:
        """(place, seconds since the start of its stretch) of the grid lines."""
        return [
            (self.at(start + number * self.step_s), number * self.step_s)
            for start, end in self.busy
            for number in range(int((end - start) / self.step_s) + 1)
        ]
