"""Permits: three limits, counted together, given back on every path."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.errors import AtCapacity, Bound
from aero_l2.session.registry import Holder, Permit, PermitLimits, Permits

ME = Holder("192.0.2.1", "me")


def test_permits_come_back_on_every_path() -> None:
    permits = Permits(PermitLimits(process=1))
    with permits.take(ME), pytest.raises(AtCapacity), permits.take(ME):
        pass
    held = permits.take(ME)
    held.__enter__()
    failure = ValueError("inside")
    assert not held.__exit__(ValueError, failure, None)
    assert permits.taken == 0
    assert permits.tracked == 0


def test_zero_is_no_limit() -> None:
    permits = Permits(PermitLimits())
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(permits.take(ME))
        assert permits.taken == 100


@pytest.mark.parametrize(
    ("limits", "second", "bound"),
    [
        (PermitLimits(client=1), Holder("192.0.2.1", "other"), Bound.CLIENT),
        (PermitLimits(process=1), Holder("192.0.2.2", "other"), Bound.PROCESS),
        (PermitLimits(principal=1), Holder("192.0.2.2", "me"), Bound.PRINCIPAL),
        (PermitLimits(client=1, process=1, principal=1), ME, Bound.CLIENT),
        (PermitLimits(process=1, principal=1), ME, Bound.PROCESS),
    ],
)
def test_first_limit_that_is_reached_is_named(limits: PermitLimits, second: Holder, bound: Bound) -> None:
    permits = Permits(limits)
    with permits.take(ME):
        with pytest.raises(AtCapacity) as caught, permits.take(second):
            pass
        assert (caught.value.bound, caught.value.limit) == (bound, 1)
        assert permits.taken == 1


def test_credentials_that_name_nobody_are_not_counted_as_one_session() -> None:
    permits = Permits(PermitLimits(principal=1))
    with permits.take(Holder("192.0.2.1")), permits.take(Holder("192.0.2.1")):
        assert permits.taken == 2


def test_limits_change_under_permits_that_are_held() -> None:
    permits = Permits(PermitLimits(process=2))
    with permits.take(ME), permits.take(ME):
        permits.limits = PermitLimits(process=1)
        with pytest.raises(AtCapacity), permits.take(ME):
            pass
    permits.limits = PermitLimits(process=3)
    with permits.take(ME), permits.take(ME), permits.take(ME):
        pass
    assert permits.taken == 0


holders = st.builds(Holder, st.sampled_from("abc"), st.sampled_from([None, "x", "y"]))
limits = st.builds(PermitLimits, *[st.integers(0, 3)] * 3)


@given(limits, st.lists(st.tuples(holders, st.booleans()), max_size=30))
def test_no_sequence_exceeds_a_limit_or_leaks(limit: PermitLimits, steps: list[tuple[Holder, bool]]) -> None:
    """Permits are taken, or the oldest is given back; the counts are those of a plain list."""
    permits = Permits(limit)
    held: list[tuple[Holder, ExitStack]] = []
    for holder, give_back in steps:
        if give_back and held:
            held.pop(0)[1].close()
        stack = ExitStack()
        counts = (
            (limit.client, sum(other.client == holder.client for other, _ in held)),
            (limit.process, len(held)),
            (limit.principal, sum(other.principal == holder.principal for other, _ in held)),
        )
        counts = counts if holder.principal is not None else counts[:2]
        if any(0 < most <= count for most, count in counts):
            with pytest.raises(AtCapacity):
                stack.enter_context(permits.take(holder))
        else:
            stack.enter_context(permits.take(holder))
            held.append((holder, stack))
        assert permits.taken == len(held)
    for _, stack in held:
        stack.close()
    assert permits.taken == 0
    assert permits.tracked == 0


def test_permit_moves_to_another_address_or_stays_as_it_was() -> None:
    permits = Permits(PermitLimits(client=1, process=2, principal=1))
    elsewhere = Holder("192.0.2.2", "me")
    with permits.take(ME) as mine:
        with permits.take(Holder("192.0.2.2", "other")):
            with pytest.raises(AtCapacity) as caught:
                mine.move(elsewhere)
            assert caught.value.bound is Bound.CLIENT
            assert permits.taken == 2
        mine.move(elsewhere)
        mine.move(elsewhere)
        assert permits.taken == 1
        permits.check(Holder("192.0.2.1", "third"))
        with pytest.raises(AtCapacity):
            permits.check(Holder("192.0.2.2", "third"))
    assert permits.tracked == 0


HOLDERS = [Holder(client, principal) for client in "abc" for principal in ("me", "you", None)]


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(HOLDERS)), max_size=40))
def test_any_moves_are_given_back_and_no_limit_is_passed(moves: list[tuple[int, Holder]]) -> None:
    permits = Permits(PermitLimits(client=2, process=4, principal=2))
    held: dict[int, tuple[ExitStack, Permit]] = {}
    for number, holder in moves:
        try:
            if number in held:
                held[number][1].move(holder)
            else:
                stack = ExitStack()
                held[number] = (stack, stack.enter_context(permits.take(holder)))
        except AtCapacity:
            pass
        counts = permits._taken
        assert permits.taken == len(held) <= 4
        assert all(count <= 2 for (bound, _), count in counts.items() if bound is not Bound.PROCESS)
    for stack, _ in held.values():
        stack.close()
    assert permits.tracked == 0


def test_promised_permit_counts_for_nobody_else_until_it_is_kept_after_all() -> None:
    permits = Permits(PermitLimits(client=1))
    new = object()
    with permits.take(ME) as old:
        old.promise(new)
        with permits.take(ME):
            assert permits.taken == 1
            with pytest.raises(AtCapacity):
                permits.check(ME)
            permits.check(ME, more=0)
            old.move(Holder("192.0.2.1", "me"))
            assert (old.promised_to, permits.taken) == (None, 2)
            with pytest.raises(AtCapacity):
                permits.check(ME, more=0)
            old.promise(new)
    old.keep()
    assert permits.tracked == 0, "what was given back is not counted again"


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["take", "promise", "keep", "move", "end"]))))
def test_any_promises_come_out_even(steps: list[tuple[int, str]]) -> None:
    permits = Permits(PermitLimits())
    held: dict[int, tuple[ExitStack, Permit]] = {}
    gone: list[Permit] = []
    for number, step in steps:
        if number not in held:
            stack = ExitStack()
            held[number] = (stack, stack.enter_context(permits.take(HOLDERS[number])))
        stack, permit = held[number]
        if step == "promise" and permit.promised_to is None:
            permit.promise(steps)
        elif step == "keep":
            permit.keep()
        elif step == "move":
            permit.move(HOLDERS[-1])
        elif step == "end":
            del held[number]
            stack.close()
            gone.append(permit)
        assert permits.taken == sum(permit.promised_to is None for _, permit in held.values())
    for stack, _ in held.values():
        stack.close()
    for permit in gone:
        permit.keep()
    assert permits.tracked == 0


@pytest.mark.parametrize(
    ("one", "other", "bounds"),
    [
        (ME, ME, set(Bound)),
        (ME, Holder("192.0.2.2", "me"), {Bound.PROCESS, Bound.PRINCIPAL}),
        (ME, Holder("192.0.2.1", "other"), set()),
        (ME, Holder("192.0.2.1"), set()),
        (Holder("192.0.2.1"), ME, set()),
        (Holder("192.0.2.1"), Holder("192.0.2.1"), {Bound.CLIENT}),
        (Holder("192.0.2.1"), Holder("192.0.2.2"), set()),
    ],
)
def test_who_is_made_room_for_by_whom_and_under_which_limits(
    one: Holder, other: Holder, bounds: set[Bound]
) -> None:
    assert {bound for bound in Bound if one.may_replace(other, bound)} == bounds
