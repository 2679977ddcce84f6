"""Requests a minute and bytes stored: counted per client, forgotten when idle."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hxmlops_sharing.access import EVERYONE, Caller
from hxmlops_sharing.limits import MAX_CLIENTS, Limits
from hxmlops_sharing.problems import Problem
from hxmlops_sharing.settings import read_settings


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def limits(clock: Clock, **given_: Any) -> Limits:
    return Limits(read_settings(kind="model", database="d", store="s", auth="none", **given_), clock)


def client(name: str = "mno", **more: Any) -> Caller:
    return Caller(name, frozenset({"read"}), ("*",), **more)


def allowed(limited: Limits, caller: Caller | None, tries: int, peer: str = "") -> int:
    """How many of so many requests at once pass."""
    passed = 0
    for _ in range(tries):
        try:
            limited.check(caller, peer)
            passed += 1
        except Problem:
            pass
    return passed


def test_without_a_limit_nothing_is_counted() -> None:
    limited = limits(Clock())
    assert allowed(limited, client(), 1000) == 1000
    assert allowed(limited, None, 1000) == 1000
    assert limited._full_at == {}


def test_a_minutes_requests_at_once_then_as_they_come_back() -> None:
    clock = Clock()
    limited = limits(clock, requests_per_minute=60)
    assert allowed(limited, client(), 100) == 60
    clock.now += 10
    assert allowed(limited, client(), 100) == 10
    clock.now += 3600
    assert allowed(limited, client(), 100) == 60


def test_the_refusal_says_when_to_come_back() -> None:
    clock = Clock()
    limited = limits(clock, requests_per_minute=6)
    allowed(limited, client(), 6)
    clock.now += 2.5
    with pytest.raises(Problem) as problem:
        limited.check(client())
    assert problem.value.status_code == 429
    assert problem.value.detail == "mno may make 6 requests a minute: wait 8 s"
    assert problem.value.headers == {"Retry-After": "8"}
    clock.now += 8
    limited.check(client())


def test_a_tokens_own_rate_goes_before_the_servers() -> None:
    limited = limits(Clock(), requests_per_minute=10)
    assert allowed(limited, client("wide", requests_per_minute=20), 100) == 20
    assert allowed(limited, client("narrow", requests_per_minute=2), 100) == 2
    assert allowed(limits(Clock()), client(requests_per_minute=3), 100) == 3


def test_clients_do_not_share_but_tokens_of_one_client_do() -> None:
    limited = limits(Clock(), requests_per_minute=10)
    assert allowed(limited, client("a"), 100) == 10
    assert allowed(limited, client("b"), 100) == 10
    assert allowed(limited, client("a", purpose="another token"), 100) == 0


def test_who_is_nobody_is_counted_by_address() -> None:
    limited = limits(Clock(), requests_per_minute=10)
    assert allowed(limited, None, 100, "192.0.2.1") == 10
    assert allowed(limited, EVERYONE, 100, "192.0.2.1") == 0
    assert allowed(limited, EVERYONE, 100, "192.0.2.2") == 10
    assert allowed(limited, client("address 192.0.2.2"), 100) == 10  # a name that looks like an address is a client's
    assert allowed(limited, None, 100, "::ffff:192.0.2.1") == 0
    assert allowed(limited, None, 100, "2001:db8::1") == 10
    assert allowed(limited, None, 100, "2001:db8::2:1") == 0  # the same customer's
    assert allowed(limited, None, 100, "2001:db8:0:1::1") == 10
    assert allowed(limited, None, 100, "fe80::1%eth0") == 10
    assert allowed(limited, None, 100, "") == 10


def test_a_clock_that_stands_still_or_jumps_gives_no_credit() -> None:
    clock = Clock()
    limited = limits(clock, requests_per_minute=5)
    assert allowed(limited, client(), 100) == 5
    clock.now += 1e9
    assert allowed(limited, client(), 100) == 5


def test_memory_is_bounded_and_the_busy_are_remembered() -> None:
    clock = Clock()
    limited = limits(clock, requests_per_minute=100)
    assert allowed(limited, client("busy"), 200) == 100
    for number in range(3 * MAX_CLIENTS):
        limited.check(None, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        assert len(limited._full_at) <= MAX_CLIENTS
    assert allowed(limited, client("busy"), 100) == 0
    clock.now += 61
    limited._forget(clock.now)
    assert limited._full_at == {}


@given(st.integers(1, 1000), st.lists(st.tuples(st.floats(0, 30), st.integers(1, 400)), max_size=20))
@settings(deadline=None)
def test_never_more_than_a_bucket_and_what_flows_in(rate: int, bursts: list[tuple[float, int]]) -> None:
    clock = Clock()
    limited = limits(clock, requests_per_minute=rate)
    passed = sum(_burst(clock, limited, pause, tries) for pause, tries in bursts)
    assert passed <= rate + rate * clock.now / 60 + 1e-6
    assert passed >= min(rate, sum(tries for _, tries in bursts))


def _burst(clock: Clock, limited: Limits, pause: float, tries: int) -> int:
    clock.now += pause
    return allowed(limited, client(), tries)


@pytest.mark.parametrize(
    ("own", "of_server", "used", "left"),
    [(0, 0, 10**15, None), (0, 100, 30, 70), (50, 100, 30, 20), (500, 100, 100, 400), (0, 100, 200, 0)],
)
def test_quota(own: int, of_server: int, used: int, left: int | None) -> None:
    assert limits(Clock(), quota_bytes=of_server).quota_left(client(quota_bytes=own), used) == left
