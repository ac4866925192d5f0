"""What a tunnel may use, without a clock: bytes, messages in a second, both exact."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.quota.hour import HourQuotas
from aero_l2.quota.traffic import Allowance, Exceeded


def test_exceeded_is_more_than_the_limit() -> None:
    allowance = Allowance(max_bytes=100)
    assert allowance.spend(60, 0.0) is None
    assert allowance.spend(40, 0.0) is None
    assert allowance.spend(1, 0.0) is Exceeded.BYTES
    assert allowance.spend(0, 0.0) is None


def test_what_is_too_much_is_not_counted() -> None:
    allowance = Allowance(max_bytes=100, max_messages=3)
    assert allowance.spend(101, 0.0, 1) is Exceeded.BYTES
    assert allowance.spend(1, 0.0, 4) is Exceeded.RATE
    assert allowance.spend(100, 0.0, 3) is None


def test_window_is_a_fixed_second_from_its_first_message() -> None:
    allowance = Allowance(max_messages=2)
    assert allowance.spend(1, 10.0, 1) is None
    assert allowance.spend(1, 10.9, 1) is None
    assert allowance.spend(1, 10.99, 1) is Exceeded.RATE
    assert allowance.spend(1, 11.0, 2) is None
    assert allowance.spend(1, 11.99, 1) is Exceeded.RATE
    assert allowance.spend(1, 57.5, 2) is None
    assert allowance.spend(1, 58.4, 1) is Exceeded.RATE


def test_what_is_sent_is_no_message_of_the_client() -> None:
    allowance = Allowance(max_messages=1)
    assert allowance.spend(1, 0.0, 1) is None
    assert allowance.spend(1000, 0.0) is None


def test_without_limits_nobody_needs_to_ask() -> None:
    assert not Allowance().is_limited
    assert Allowance(max_bytes=1).is_limited
    assert Allowance(max_messages=1).is_limited
    assert Allowance(account=HourQuotas(1).hold("me", 0.0)).is_limited


@pytest.mark.parametrize("limit", [1, 50, 1000])
@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 60), st.booleans()), max_size=60))
def test_no_sequence_gets_more_than_the_limits(limit: int, steps: list[tuple[float, int, bool]]) -> None:
    """Against a plain list of what was admitted; what fits is never refused."""
    allowance, now, used = Allowance(max_bytes=limit, max_messages=5), 0.0, 0
    window, in_window = float("-inf"), 0
    for gap, size, is_inbound in steps:
        now += gap
        if is_inbound and now >= window + 1.0:
            window, in_window = now, 0
        fits = used + size <= limit
        fits_rate = not is_inbound or in_window < 5
        got = allowance.spend(size, now, int(is_inbound))
        if not fits:
            assert got is Exceeded.BYTES
            return
        if not fits_rate:
            assert got is Exceeded.RATE
            return
        assert got is None
        used += size
        in_window += is_inbound
