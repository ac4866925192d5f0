"""What the process can bear: how far the loop is behind, and what the host still has room for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from aero_l2.config import Settings
from aero_l2.observe.metrics import Metrics
from aero_l2.quota.capacity import LIMITS, Capacity, Limit, Room, capacity
from aero_l2.quota.lag import LagGate

SAMPLE_S: Final = 0.1
LOOK_S: Final = 1.0
"""A look at the host is good for so long; it costs about half a millisecond."""
LATE: Final = "the server is overloaded; try again"

_log = structlog.get_logger("aero_l2.door")

HostRoom = Callable[[int], Room]
"""What the host has while so many tunnels stand."""


class Pressure:
    """Measures, and says when it is too much. `start` and `stop` frame the measuring of the loop.

    host: looked at once a second at most. standing: tunnels that stand. files: how many tunnels the file
    descriptors suffice for, 0 = any number. held: permits for tunnels that are taken.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        host: HostRoom,
        standing: Callable[[], int],
        files: int = 0,
        held: Callable[[], int] = lambda: 0,
    ) -> None:
        self._metrics = metrics
        self._held = held
        self._host = host
        self._standing = standing
        self._gate = LagGate(0.0)
        self._timer: asyncio.TimerHandle | None = None
        self.apply(settings, files)
        for limit in LIMITS:
            metrics.capacity_tunnels[limit].set_function(partial(self._allowed, limit))
            if limit != "files":  # whoever looks at the processes tells those
                metrics.capacity_max[limit].set_function(partial(self._max, limit))
                metrics.capacity_used[limit].set_function(partial(self._used, limit))

    def apply(self, settings: Settings, files: int) -> None:
        """Judge by these from now on."""
        self._setting, self._files = settings.max_connections, files
        self._gate.limit_s = settings.max_loop_lag_ms / 1000
        self._looked_at = float("-inf")

    def start(self) -> None:
        """Measure the running loop from now on; says so where the host allows less than was asked for."""
        if self.capacity.binding not in (None, "setting", "files"):  # the latter has been said already
            _log.warning("the host limits the tunnels", capacity=self.capacity.text)
        self._sample_next()

    def _sample_next(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + SAMPLE_S
        self._timer = loop.call_at(due, self._sample, due)

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _sample(self, due: float) -> None:
        lag = max(0.0, asyncio.get_running_loop().time() - due)
        self._metrics.loop_lag_seconds.observe(lag)
        self._gate.take(lag)
        self._sample_next()

    @property
    def capacity(self) -> Capacity:
        """What there is room for."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_S:
            standing = self._standing()
            self._looked_at = now
            self._capacity = capacity(self._setting, self._files, self._host(standing), standing)
        return self._capacity

    def too_late(self) -> str | None:
        """Why nothing more should be taken on, None where the loop keeps up."""
        return LATE if self._gate.is_behind else None

    def no_room(self, others: int) -> str | None:
        """Why the host has no room for one tunnel more while `others` stand or are being set up."""
        return self.capacity.exhausted(others)

    def unready_reason(self) -> str | None:
        """Why no tunnel would be made now, None where one would."""
        return self.too_late() or self.no_room(self._standing())

    def _allowed(self, limit: Limit) -> float:
        tunnels = self.capacity.shares[limit].tunnels
        return float("inf") if tunnels is None else tunnels

    def _max(self, limit: Limit) -> float:
        if limit == "setting":
            return self._setting or float("inf")
        stock = self.capacity.shares[limit].stock
        return float("inf") if stock is None else stock.total

    def _used(self, limit: Limit) -> float:
        if limit == "setting":
            return self._held()
        stock = self.capacity.shares[limit].stock
        return 0 if stock is None else stock.total - stock.left
