"""The pure parts of a session: the table of reasons, the stall clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.observe.metrics import Metrics
from aero_l2.session.closing import CLOSINGS, Reason
from aero_l2.session.stall import StallClock


@pytest.mark.parametrize(
    ("reason", "error_code", "close_code", "text"),
    [
        (Reason.MALFORMED_MESSAGE, 1, 1008, ""),
        (Reason.BYTE_QUOTA, 6, 1008, "byte quota exceeded"),
        (Reason.FRAME_RATE_QUOTA, 7, 1008, "frame rate quota exceeded"),
        (Reason.BACKPRESSURE, 9, 1008, "outbound websocket backpressure"),
        (Reason.IDLE_TIMEOUT, None, 1008, "idle timeout"),
        (Reason.PEER_SILENT, None, 1008, "no answer to pings"),
        (Reason.KICKED, None, 1008, "closed by the operator"),
        (Reason.SHUTDOWN, None, 1001, "shutting down"),
        (Reason.TUNNEL_FAILED, None, 1011, "tunnel failed"),
    ],
)
def test_reasons_look_as_promised(reason: Reason, error_code: int | None, close_code: int, text: str) -> None:
    closing = CLOSINGS[reason]
    assert (closing.error_code, closing.close_code, closing.text) == (error_code, close_code, text)


def test_every_reason_is_in_the_table_and_its_metric_exists() -> None:
    metrics = Metrics()
    assert set(CLOSINGS) == set(Reason)
    assert all(closing.metric is None or hasattr(metrics, closing.metric) for closing in CLOSINGS.values())
    assert all(len(closing.text.encode()) <= 123 for closing in CLOSINGS.values())


def test_stall_needs_the_whole_time_without_progress() -> None:
    clock = StallClock(10.0)
    clock.start(0.0, written=100, outstanding=100)
    assert not clock.is_stalled(9.9, 5000, 5000)
    assert clock.is_stalled(10.0, 5000, 5000)


def test_slow_reader_is_not_stalled() -> None:
    clock = StallClock(10.0)
    clock.start(0.0, written=1000, outstanding=1000)
    assert not any(clock.is_stalled(9.0 * step, 1000, 1000 - step) for step in range(1, 100))


@given(st.floats(0.01, 100), st.floats(0, 1000))
def test_next_look_is_never_later_than_the_deadline(timeout: float, waited: float) -> None:
    clock = StallClock(timeout)
    clock.start(0.0, 1, 1)
    assert 0 < clock.next_look_s(min(waited, timeout)) <= max(0.001, timeout / 4)
