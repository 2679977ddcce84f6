"""How long a call goes on when things go wrong: pauses between tries, and the least speed of a body."""

import random
import time
from collections.abc import Sequence

import httpx2 as httpx

CALL_PAUSES_S: Sequence[float] = (0.2, 0.8)
TRANSFER_PAUSES_S: Sequence[float] = (0.2, 0.5, 1, 2, 4, 8, 15)
"""A server may start anew meanwhile."""
RECEIPT_PAUSES_S: Sequence[float] = (0.1, 0.3, 1, 2)
LONGEST_WAIT_S = 60.0
"""A server that asks for more is told to the user instead."""
WORTH_A_TRY = 64 << 10
"""Bytes that make up for a broken connection: all tries are there again."""
LEAST_BYTES = 16 << 10
"""Bytes of a body that must come within the time in which nothing may stall."""


class Patience:
    """The pauses that are left before giving up. They vary, so that many clients do not come back at once."""

    def __init__(self, pauses_s: Sequence[float]) -> None:
        self._pauses_s = pauses_s
        self._used = 0

    def renew(self) -> None:
        self._used = 0

    def pause(self, asked_s: float = 0) -> float | None:
        """Seconds to wait before the next try, at least what the server asks for; None: give up."""
        if self._used == len(self._pauses_s) or asked_s > LONGEST_WAIT_S:
            return None
        pause = self._pauses_s[self._used] * random.uniform(0.5, 1)  # noqa: S311 (no secret)
        self._used += 1
        return max(pause, asked_s)


class Pace:
    """Sees that a body goes on coming: a peer that sends a byte now and then would hold us for ever."""

    def __init__(self, stall_s: float) -> None:
        self._stall_s = stall_s
        self._since, self._bytes = time.monotonic(), 0

    def check(self, count: int) -> None:
        """To be told of the bytes that have come now. ReadTimeout when they are too few for the time that they took."""
        self._bytes += count
        if self._bytes >= LEAST_BYTES:
            self._since, self._bytes = time.monotonic(), 0
        elif time.monotonic() - self._since > self._stall_s:
            raise httpx.ReadTimeout(f"no more than {self._bytes} bytes came in {self._stall_s:g} s")
