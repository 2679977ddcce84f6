"""How often and how much: requests per minute and bytes stored, per client. Each server process counts for itself."""

import ipaddress
import math
import time
from collections.abc import Callable

from hxmlops_sharing.access import EVERYONE, Caller
from hxmlops_sharing.problems import Problem
from hxmlops_sharing.settings import Settings

WINDOW_S = 60.0
MAX_CLIENTS = 10_000
"""Clients remembered at once. One that has not called for WINDOW_S is as good as forgotten."""


class Limits:
    """A token bucket for each client: it holds a minute's requests and fills in a minute."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._full_at: dict[str, float] = {}
        """When each bucket that is not full will be full again, by the clock."""

    def check(self, caller: Caller | None, peer: str = "") -> None:
        """Count a request. Problem 429 when it is one too many.

        Callers who are nobody in particular (None, EVERYONE) are counted by the address `peer`.
        """
        if caller is None or caller == EVERYONE:
            rate, key = self._settings.requests_per_minute, f"address {_network(peer)}"
        else:
            rate, key = caller.requests_per_minute or self._settings.requests_per_minute, f"client {caller.client}"
        if rate == 0:
            return
        at = self._clock()
        full_at = max(self._full_at.get(key, at), at) + WINDOW_S / rate
        if full_at - at > WINDOW_S * (1 + 1e-9):
            wait = math.ceil(full_at - at - WINDOW_S)
            who = caller.client if caller else "this address"
            raise Problem(
                429,
                "too-many-requests",
                f"{who} may make {rate} requests a minute: wait {wait} s",
                {"Retry-After": str(wait)},
            )
        if key not in self._full_at and len(self._full_at) >= MAX_CLIENTS:
            self._forget(at)
        self._full_at[key] = full_at

    def quota_left(self, caller: Caller, used: int) -> int | None:
        """Bytes that a client who has stored `used` may still store; None: no limit."""
        quota = caller.quota_bytes or self._settings.quota_bytes
        return max(quota - used, 0) if quota else None

    def _forget(self, at: float) -> None:
        """Half of the clients at least: those whose buckets are full, or nearest to it."""
        waiting = sorted(((full_at, key) for key, full_at in self._full_at.items() if full_at > at), reverse=True)
        self._full_at = {key: full_at for full_at, key in waiting[: MAX_CLIENTS // 2]}


def _network(peer: str) -> str:
    """The address, or of IPv6 the /64 that one customer has all of."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
