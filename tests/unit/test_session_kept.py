"""The phase `kept` of a tunnel's life, without a clock: what goes on, what waits, what ends it."""

from __future__ import annotations

import pytest

from aero_l2.errors import IllegalTransition
from aero_l2.session.closing import Reason
from aero_l2.session.lifecycle import EXPIRY_LOOK_S, End, Lifecycle, Phase, SendPing, Times

WALL = 1_700_000_000.0


def kept(times: Times, *, opened: float = 0.0, at: float = 5.0, expires_at: float | None = None) -> Lifecycle:
    life = Lifecycle(times, expires_at)
    life.preparing()
    life.opened(opened, nat_ready=True)
    while life.look(opened, WALL + opened) is not None:
        pass
    life.kept(at)
    return life


def test_kept_life_is_live_and_not_open() -> None:
    life = kept(Times(keep_s=60))
    assert life.phase is Phase.KEPT
    assert life.is_live
    assert not life.is_open
    life.resumed(6.0, None)
    assert life.phase is Phase.OPEN
    assert life.next_deadline is None


def test_nobody_comes_back_in_time() -> None:
    life = kept(Times(keep_s=60), at=5.0)
    assert life.next_deadline == 65.0
    assert life.look(64.9, WALL) is None
    assert life.look(65.0, WALL) == End(Reason.NOT_RESUMED)


def test_silence_and_pings_wait_and_begin_anew() -> None:
    life = kept(Times(idle_s=10, ping_interval_s=2, keep_s=60), at=5.0)
    assert life.next_deadline == 65.0
    assert life.answered(b"\0" * 7 + b"\1", 6.0) is None
    life.resumed(40.0, None)
    assert life.look(40.0, WALL) == SendPing((1).to_bytes(8, "big"))
    life.answered((1).to_bytes(8, "big"), 40.0)
    assert life.look(49.0, WALL) == SendPing((2).to_bytes(8, "big"))
    assert life.look(49.9, WALL) is None
    assert life.look(50.0, WALL) == End(Reason.IDLE_TIMEOUT)


def test_length_goes_on_while_it_is_kept_and_after() -> None:
    times = Times(session_s=30, keep_s=60)
    life = kept(times)
    assert life.look(30.0, WALL) == End(Reason.SESSION_TOO_LONG)
    again = kept(times)
    again.resumed(20.0, None)
    assert again.look(29.9, WALL) is None
    assert again.look(30.0, WALL) == End(Reason.SESSION_TOO_LONG)


def test_expired_credential_ends_what_is_kept() -> None:
    life = kept(Times(keep_s=600), expires_at=WALL + 50)
    assert life.look(EXPIRY_LOOK_S, WALL + EXPIRY_LOOK_S) is None
    assert life.look(50.0, WALL + 50) == End(Reason.SESSION_EXPIRED)


@pytest.mark.parametrize(("expires_at", "end"), [(WALL + 90, 90.0), (WALL + 20, 20.0), (None, None)])
def test_credential_of_whoever_comes_back_counts_from_then_on(
    expires_at: float | None, end: float | None
) -> None:
    life = kept(Times(keep_s=600), expires_at=WALL + 50)
    life.resumed(10.0, expires_at)
    ended = [
        now
        for now in range(10, 200)
        if life.phase is Phase.OPEN and life.look(now, WALL + now) == End(Reason.SESSION_EXPIRED)
    ]
    assert ended == ([] if end is None else [end])


def test_nat_process_that_does_not_come_ends_it() -> None:
    life = Lifecycle(Times(nat_wait_s=30, keep_s=60))
    life.preparing()
    life.opened(0.0, nat_ready=False)
    life.kept(1.0)
    due = life.look(30.0, WALL)
    assert isinstance(due, End)
    assert due.reason is Reason.TUNNEL_FAILED


def test_kept_twice_each_time_has_its_own_end() -> None:
    life = kept(Times(keep_s=60), at=5.0)
    life.resumed(30.0, None)
    life.kept(40.0)
    assert life.kept_at == 40.0
    assert life.look(99.9, WALL) is None
    assert life.look(100.0, WALL) == End(Reason.NOT_RESUMED)


def test_what_ends_while_it_is_kept_does_not_come_back() -> None:
    life = kept(Times(keep_s=60))
    life.closing(Reason.SHUTDOWN, "shutting down", 6.0)
    assert not life.is_live
    with pytest.raises(IllegalTransition):
        life.resumed(7.0, None)
    assert life.closed(Reason.CUT_OFF) is Reason.SHUTDOWN


def test_only_an_open_tunnel_is_kept_and_only_a_kept_one_resumed() -> None:
    life = Lifecycle(Times(keep_s=60))
    with pytest.raises(IllegalTransition):
        life.kept(0.0)
    life.preparing()
    with pytest.raises(IllegalTransition):
        life.kept(0.0)
    life.opened(0.0, nat_ready=True)
    with pytest.raises(IllegalTransition):
        life.resumed(0.0, None)
