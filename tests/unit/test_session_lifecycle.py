"""The life of a tunnel, without a clock: phases, deadlines, and what is due when."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.errors import IllegalTransition
from aero_l2.session.closing import Reason
from aero_l2.session.lifecycle import LATE_S, Drop, Due, End, Lifecycle, Phase, SendPing, Times
from aero_l2.session.pings import PingClock

NEVER = Times(nat_wait_s=0)
WALL = 1_700_000_000.0


def opened(
    times: Times = NEVER,
    *,
    at: float = 0.0,
    nat_ready: bool = True,
    pinged: bool = True,
    expires_at: float | None = None,
) -> Lifecycle:
    life = Lifecycle(times, expires_at)
    life.preparing()
    life.opened(at, nat_ready=nat_ready, pinged=pinged)
    return life


def due(life: Lifecycle, now: float, wall: float | None = None) -> list[Due]:
    """All that is due at `now`, as the holder of the timer would do it."""
    found = []
    while (one := life.look(now, WALL + now if wall is None else wall)) is not None:
        found.append(one)
        if isinstance(one, End):
            life.closing(one.reason, "", now)
    return found


def woken(life: Lifecycle, until: float) -> list[tuple[float, Due]]:
    """Everything that is due until then, each when its timer wakes."""
    found = []
    while (deadline := life.next_deadline) is not None and deadline <= until:
        found += [(deadline, one) for one in due(life, deadline)]
    return found


# --- Phases ----------------------------------------------------------------------------------------------


def test_a_whole_life() -> None:
    life = Lifecycle(NEVER)
    assert life.phase is Phase.ACCEPTED
    life.preparing()
    assert not life.is_open
    life.opened(1.0, nat_ready=True)
    assert life.is_open
    life.closing(Reason.SHUTDOWN, "shutting down", 2.0)
    assert life.closed(Reason.CUT_OFF) is Reason.SHUTDOWN
    assert (life.phase, life.reason, life.text) == (Phase.CLOSED, Reason.SHUTDOWN, "shutting down")
    assert life.next_deadline is None


def test_every_phase_may_end() -> None:
    fresh, preparing = Lifecycle(NEVER), Lifecycle(NEVER)
    preparing.preparing()
    for life in (fresh, preparing, opened()):
        assert life.closed(Reason.CUT_OFF) is Reason.CUT_OFF
        assert life.phase is Phase.CLOSED


def test_no_way_back() -> None:
    fresh, preparing, closing, closed = Lifecycle(NEVER), Lifecycle(NEVER), opened(), opened()
    preparing.preparing()
    closing.closing(Reason.PEER_CLOSED, "", 1.0)
    closed.closed(Reason.CUT_OFF)
    steps: tuple[Callable[[], object], ...] = (
        lambda: fresh.opened(1.0, nat_ready=True),
        preparing.preparing,
        lambda: preparing.closing(Reason.SHUTDOWN, "", 1.0),
        lambda: closing.opened(1.0, nat_ready=True),
        lambda: closing.closing(Reason.SHUTDOWN, "", 1.0),
        lambda: closed.closing(Reason.SHUTDOWN, "", 1.0),
        lambda: closed.closed(Reason.SHUTDOWN),
    )
    for step in steps:
        with pytest.raises(IllegalTransition):
            step()
    assert closing.reason is Reason.PEER_CLOSED


# --- Deadlines -------------------------------------------------------------------------------------------


def test_without_limits_there_is_nothing_to_wake_for() -> None:
    assert opened().next_deadline is None


def test_silence_of_the_whole_time_is_the_end() -> None:
    life = opened(Times(idle_s=10), at=100.0)
    assert woken(life, 110.0) == [(110.0, End(Reason.IDLE_TIMEOUT))]


@given(st.lists(st.floats(0.001, 9.99), max_size=20))
def test_idle_time_runs_from_the_last_message(gaps: list[float]) -> None:
    life, now = opened(Times(idle_s=10)), 0.0
    for gap in gaps:
        now += gap
        assert woken(life, now) == []
        life.heard(now)
    [(ended, end)] = woken(life, now + 10.5)
    assert end == End(Reason.IDLE_TIMEOUT)
    assert ended == pytest.approx(now + 10)


def test_silence_while_the_process_stood_still_is_not_held_against_the_client() -> None:
    life = opened(Times(idle_s=10))
    assert due(life, 500.0) == []
    life.heard(500.1)  # it lay in the socket
    assert due(life, 510.0) == []
    assert due(life, 510.1) == [End(Reason.IDLE_TIMEOUT)]


def test_client_that_says_nothing_after_a_standstill_either_is_idle() -> None:
    life = opened(Times(idle_s=10))
    assert due(life, 500.0) == []
    assert life.next_deadline == 500.0 + LATE_S
    assert due(life, 500.0 + LATE_S) == [End(Reason.IDLE_TIMEOUT)]


def test_session_ends_after_its_time_however_much_is_said() -> None:
    life = opened(Times(idle_s=10, session_s=25), at=5.0)
    for now in range(5, 30):
        assert due(life, now) == []
        life.heard(now)
    assert due(life, 30.0) == [End(Reason.SESSION_TOO_LONG)]


def test_expired_credential_ends_it_by_the_clock_on_the_wall() -> None:
    life = opened(expires_at=WALL + 100)
    assert due(life, 0.0) == []
    assert life.next_deadline == 30.0
    assert due(life, 99.9) == []
    assert life.next_deadline == pytest.approx(100.0)
    assert due(life, 100.0) == [End(Reason.SESSION_EXPIRED)]


@pytest.mark.parametrize("step", [-3600, 3600])
def test_clock_that_is_set_is_noticed_within_half_a_minute(step: float) -> None:
    life = opened(expires_at=WALL + 100)
    assert due(life, 0.0) == []
    for now in range(1, 30):
        assert due(life, now, WALL + now + step) == []
    expected = [End(Reason.SESSION_EXPIRED)] if step > 0 else []
    assert due(life, 30.0, WALL + 30 + step) == expected


def test_credential_that_expired_before_the_opening_ends_it_at_once() -> None:
    assert due(opened(expires_at=WALL - 1), 0.0) == [End(Reason.SESSION_EXPIRED)]


def test_nat_process_that_does_not_come_fails_the_tunnel() -> None:
    life = opened(Times(nat_wait_s=30), nat_ready=False)
    [(ended, end)] = woken(life, 30.5)
    assert isinstance(end, End)
    assert (ended, end.reason) == (30.0, Reason.TUNNEL_FAILED)
    assert "slirp4netns" in end.why


def test_nat_process_that_comes_is_waited_for_no_more() -> None:
    life = opened(Times(nat_wait_s=30), nat_ready=False)
    life.nat_ready()
    assert life.next_deadline is None


def test_peer_that_does_not_close_is_dropped() -> None:
    life = opened(Times(idle_s=5, session_s=7, close_wait_s=1), expires_at=WALL + 3)
    life.closing(Reason.SHUTDOWN, "", 2.0)
    assert woken(life, 100.0) == [(3.0, Drop())]


def test_of_ends_that_are_due_together_one_is_named() -> None:
    life = opened(Times(idle_s=10, session_s=10), expires_at=WALL + 10)
    assert due(life, 0.0) == []
    assert due(life, 10.0) == [End(Reason.SESSION_EXPIRED)]


# --- PINGs -----------------------------------------------------------------------------------------------


def test_first_ping_goes_out_at_once_and_the_next_an_interval_after_it() -> None:
    life = opened(Times(ping_interval_s=2), at=10.0)
    assert due(life, 10.0) == [SendPing((1).to_bytes(8, "big"))]
    assert life.answered((1).to_bytes(8, "big"), 10.25) == 0.25
    assert woken(life, 12.0) == [(12.0, SendPing((2).to_bytes(8, "big")))]


@pytest.mark.parametrize(("interval", "patience"), [(0.1, 1.0), (0.33, 1.0), (0.5, 1.5), (10.0, 30.0)])
def test_ping_without_an_answer_is_followed_by_another_after_its_patience(
    interval: float, patience: float
) -> None:
    life = opened(Times(ping_interval_s=interval))
    assert len(due(life, 0.0)) == 1
    assert life.next_deadline == pytest.approx(patience)
    assert woken(life, patience - 0.001) == []
    assert woken(life, patience + 0.001) == [(patience, SendPing((2).to_bytes(8, "big")))]


def test_late_answer_to_a_ping_that_was_given_up_measures_nothing() -> None:
    life = opened(Times(ping_interval_s=1))
    assert len(woken(life, 3.0)) == 2
    assert life.answered((1).to_bytes(8, "big"), 3.1) is None
    assert life.answered((2).to_bytes(8, "big"), 3.2) == pytest.approx(0.2)
    assert life.answered((2).to_bytes(8, "big"), 3.3) is None


@pytest.mark.parametrize("payload", [b"", b"\1", bytes(8), (1).to_bytes(8, "little"), bytes(7) + b"\1\0"])
def test_pong_that_is_not_its_payload_is_no_answer(payload: bytes) -> None:
    life = opened(Times(ping_interval_s=1))
    assert len(due(life, 0.0)) == 1
    assert life.answered(payload, 0.1) is None


def test_framing_without_pings_gets_none() -> None:
    assert opened(Times(ping_interval_s=1), pinged=False).next_deadline is None


def test_pong_behind_the_end_is_no_answer() -> None:
    life = opened(Times(ping_interval_s=1))
    assert len(due(life, 0.0)) == 1
    life.closing(Reason.SHUTDOWN, "", 0.1)
    assert life.answered((1).to_bytes(8, "big"), 0.2) is None


@given(st.floats(0.001, 100), st.lists(st.tuples(st.floats(0, 400), st.booleans()), max_size=40))
def test_there_is_never_more_than_one_ping_on_its_way(
    interval: float, steps: list[tuple[float, bool]]
) -> None:
    clock, now = PingClock(interval, 0.0), 0.0
    waiting: bytes | None = None
    sent_at = 0.0
    for gap, answers in steps:
        now += gap
        if now >= clock.due_at:
            if waiting is not None:
                assert now - sent_at >= max(3 * interval, 1.0) - 1e-6
            else:
                assert sent_at == 0.0 or now - sent_at >= interval - 1e-6
            waiting, sent_at = clock.send(now), now
        elif answers and waiting is not None:
            assert clock.answered(waiting, now) == now - sent_at
            waiting = None


# --- All of it -------------------------------------------------------------------------------------------


times = st.builds(
    Times,
    idle_s=st.sampled_from([0.0, 1.0, 5.0]),
    session_s=st.sampled_from([0.0, 3.0, 30.0]),
    ping_interval_s=st.sampled_from([0.0, 0.5, 2.0]),
    nat_wait_s=st.sampled_from([0.0, 4.0]),
)
steps = st.lists(
    st.tuples(st.floats(0, 50), st.sampled_from(["look", "heard", "pong", "nat", "close"])), max_size=40
)


@given(times, st.booleans(), st.sampled_from([None, WALL + 20]), steps)
def test_looking_never_leaves_anything_due(
    times: Times, nat_ready: bool, expires_at: float | None, steps: list[tuple[float, str]]
) -> None:
    """Whatever happens when: after a look the next deadline lies ahead, and at most one end is named."""
    life, now, last_ping, ends = opened(times, nat_ready=nat_ready, expires_at=expires_at), 0.0, b"", 0
    for gap, what in steps:
        now += gap
        if what == "heard":
            life.heard(now)
        elif what == "pong":
            life.answered(last_ping, now)
        elif what == "nat":
            life.nat_ready()
        elif what == "close" and life.is_open:
            life.closing(Reason.PEER_GONE, "", now)
        for one in due(life, now):
            ends += isinstance(one, End)
            last_ping = one.payload if isinstance(one, SendPing) else last_ping
        assert life.next_deadline is None or life.next_deadline > now
    assert ends <= 1
