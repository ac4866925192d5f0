"""What a session may use in an hour, without a clock: never more, never for ever, in bounded memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aero_l2.quota import hour
from aero_l2.quota.hour import MAX_PRINCIPALS, HourQuotas
from aero_l2.quota.traffic import Allowance, Exceeded

LIMIT = 1000


def test_tunnels_of_one_principal_share_and_others_do_not() -> None:
    quotas = HourQuotas(LIMIT)
    first, second, other = (quotas.hold(who, 0.0) for who in ("me", "me", "you"))
    assert first.spend(600, 0.0)
    assert not second.spend(401, 0.0)
    assert second.spend(400, 0.0)
    assert not first.spend(1, 0.0)
    assert other.spend(1000, 0.0)


def test_principal_that_is_at_its_limit_waits_until_its_oldest_minute_is_over() -> None:
    quotas = HourQuotas(LIMIT)
    account = quotas.hold("me", 30.0)
    assert account.spend(400, 30.0)
    assert account.spend(600, 1000.0)
    assert quotas.wait_s("me", 1000.0) == 61 * 60 - 1000
    assert quotas.wait_s("me", 3659.0) == 1.0
    assert quotas.wait_s("me", 3660.0) == 0.0
    assert quotas.wait_s("nobody", 3660.0) == 0.0


def test_who_was_told_to_stop_does_not_come_in_for_less() -> None:
    quotas = HourQuotas(LIMIT)
    account = quotas.hold("me", 0.0)
    assert account.spend(10, 0.0)
    assert not account.spend(995, 0.0)
    quotas.exhaust("me", 0.0)
    assert quotas.wait_s("me", 1.0) > 3600
    assert not account.spend(1, 1.0)


def test_limit_that_is_raised_or_lifted_counts_at_once() -> None:
    quotas = HourQuotas(LIMIT)
    account = quotas.hold("me", 0.0)
    quotas.exhaust("me", 0.0)
    quotas.limit = 2000
    assert quotas.wait_s("me", 0.0) == 0
    assert account.spend(1000, 0.0)
    assert not account.spend(1, 0.0)
    quotas.limit = 0
    assert account.spend(10**12, 0.0)
    assert quotas.wait_s("me", 0.0) == 0


def test_what_was_used_is_remembered_when_the_tunnel_is_gone() -> None:
    quotas = HourQuotas(LIMIT)
    quotas.hold("me", 0.0).spend(LIMIT, 0.0)
    quotas.release("me", 1.0)
    assert quotas.wait_s("me", 2.0) > 0
    assert not quotas.hold("me", 2.0).spend(1, 2.0)


def test_principal_that_used_nothing_is_forgotten_with_its_last_tunnel() -> None:
    quotas = HourQuotas(LIMIT)
    quotas.hold("me", 0.0)
    quotas.hold("me", 0.0)
    quotas.release("me", 0.0)
    assert len(quotas) == 1
    quotas.release("me", 0.0)
    assert len(quotas) == 0


def test_principals_are_forgotten_after_their_hour_and_when_they_are_too_many() -> None:
    quotas = HourQuotas(LIMIT)
    held = quotas.hold("held", 0.0)
    for number in range(MAX_PRINCIPALS + 100):
        quotas.hold(str(number), 0.0).spend(1, 0.0)
        quotas.release(str(number), 0.0)
        assert len(quotas) <= MAX_PRINCIPALS + 2
    assert held.spend(LIMIT, 1.0)
    assert quotas.wait_s("held", 1.0) > 0
    for _ in range(MAX_PRINCIPALS):
        quotas.hold("late", 8000.0)
        quotas.release("late", 8000.0)
        quotas.hold("later", 8000.0).spend(1, 8000.0)
        quotas.release("later", 8000.0)
    assert len(quotas) == 2


def test_an_account_is_small() -> None:
    account = HourQuotas(1).hold("me", 0.0)
    assert account._used.itemsize * len(account._used) == 8 * hour._MINUTES


@given(
    st.lists(st.tuples(st.one_of(st.floats(0, 100), st.floats(0, 5000)), st.integers(0, 700)), max_size=80),
    st.floats(0, 200),
)
def test_in_no_hour_is_more_used_than_the_limit(steps: list[tuple[float, int]], start: float) -> None:
    """Against all that was ever admitted; and what is refused is free again within 61 minutes."""
    quotas, now = HourQuotas(LIMIT), start
    allowance, admitted = Allowance(account=quotas.hold("me", now)), list[tuple[float, int]]()
    for gap, size in steps:
        now += gap
        in_hour = sum(used for at, used in admitted if now - at < 3600)
        counted_longer = sum(used for at, used in admitted if now - at < 3660)
        got = allowance.spend(size, now)
        if got is None:
            admitted.append((now, size))
            assert in_hour + size <= LIMIT
        else:
            assert got is Exceeded.HOURLY_BYTES
            assert counted_longer + size > LIMIT
        wait = quotas.wait_s("me", now)
        assert 0 <= wait <= 3660
        if wait:
            assert quotas.wait_s("me", now) == wait
            assert sum(used for at, used in admitted if now + wait - at < 3600) < LIMIT


def test_clock_that_starts_anywhere_counts_the_same() -> None:
    for start in (0.0, 59.999, 123456.7, 10**7):
        quotas = HourQuotas(LIMIT)
        account = quotas.hold("me", start)
        assert account.spend(LIMIT, start)
        assert not account.spend(1, start + 3599)
        assert account.spend(1, start + 3661)
