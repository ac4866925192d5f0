"""The clock of a tunnel's connects: see `aero_l2.session.connects`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from aero_l2.observe.metrics import Metrics
from aero_l2.session.connects import Connects
from aero_l2.session.pump import Pump

WAIT_PAUSED_S: Final = 0.1
"""While the client does not read, an answer may wait in the TAP: nothing is ended before it is read."""


class ConnectWatch:
    """Sees the frames of one tunnel and ends connects that time out, by a RST to either side."""

    def __init__(self, timeout_s: float, pump: Pump, metrics: Metrics) -> None:
        self._connects = Connects(timeout_s)
        self._pump = pump
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def from_guest(self, frames: Sequence[bytes]) -> None:
        """Frames of one read, before they go to the TAP."""
        self._connects.from_guest(frames, self._loop.time())
        if self._timer is None:
            self._schedule(0.0)

    def to_guest(self, frames: Sequence[bytes]) -> None:
        """Frames on their way to the client."""
        if self._timer is not None:
            self._connects.to_guest(frames)

    def close(self) -> None:
        """End nothing any more; idempotent."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, at_least_s: float) -> None:
        deadline = self._connects.next_deadline
        if deadline is not None and not self._closed:
            self._timer = self._loop.call_at(max(deadline, self._loop.time() + at_least_s), self._look)

    def _look(self) -> None:
        self._timer = None
        if self._pump.is_paused:
            self._schedule(WAIT_PAUSED_S)
            return
        over = self._connects.expire(self._loop.time())
        if over:
            self._metrics.tcp_connect_fail.inc(len(over))
            self._pump.inject([one.to_nat for one in over], [one.to_guest for one in over])
        self._schedule(0.001)
