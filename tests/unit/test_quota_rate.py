"""The token bucket: never more than its rate, fair to everyone else, bounded in memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aero_l2.quota.rate import MAX_CLIENTS, RateLimit


def test_burst_then_the_rate() -> None:
    rate = RateLimit(6)
    assert [rate.allow("a", 100.0) for _ in range(8)] == [True] * 6 + [False] * 2
    assert not rate.allow("a", 109.0)
    assert rate.allow("a", 110.0)
    assert not rate.allow("a", 110.0)
    assert rate.retry_after_s == 10


def test_clients_do_not_share_a_bucket() -> None:
    rate = RateLimit(1)
    assert rate.allow("a", 0.0)
    assert rate.allow("b", 0.0)
    assert not rate.allow("a", 0.0)


def test_zero_is_no_limit_and_remembers_nobody() -> None:
    rate = RateLimit(0)
    assert all(rate.allow(str(number), 0.0) for number in range(100))
    assert len(rate) == 0


def test_memory_is_bounded() -> None:
    rate = RateLimit(1)
    for number in range(MAX_CLIENTS + 100):
        rate.allow(str(number), 0.0)
    assert len(rate) == MAX_CLIENTS
    assert not rate.allow(str(MAX_CLIENTS + 99), 0.0)


def test_lower_limit_counts_at_once() -> None:
    rate = RateLimit(100)
    assert rate.allow("a", 0.0)
    rate.per_minute = 1
    assert rate.allow("a", 0.0)
    assert not rate.allow("a", 0.0)


@given(st.integers(1, 50), st.lists(st.floats(0, 30), max_size=200))
def test_no_more_than_burst_and_rate_pass(per_minute: int, pauses: list[float]) -> None:
    rate = RateLimit(per_minute)
    now, passed = 0.0, 0
    for pause in pauses:
        now += pause
        passed += rate.allow("a", now)
        assert passed <= per_minute + now * per_minute / 60 + 1e-6
