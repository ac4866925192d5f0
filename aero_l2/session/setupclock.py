"""How long the steps of setting a tunnel's segment up took, for `aero_l2_setup_seconds`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial

from aero_l2.observe.metrics import Metrics
from aero_l2.observe.metrics.sessions import NETD_STEPS


class SetupClock:
    """Of one segment; runs from when it is made. is_counted: False for a trial, which is no tunnel."""

    def __init__(self, metrics: Metrics, *, is_counted: bool) -> None:
        self._steps = metrics.setup_seconds
        self._is_counted = is_counted
        self._at = time.monotonic()

    def step(self, name: str) -> None:
        """This one has ended, and the next begins."""
        now = time.monotonic()
        if self._is_counted:
            self._steps[name].observe(now - self._at)
        self._at = now

    def netd_took(self, microseconds: Sequence[int], nat_ready: asyncio.Future[None]) -> None:
        """What the network helper says of its steps; `nat_ready` is done when the last one is."""
        if not self._is_counted:
            return
        for name, took in zip(NETD_STEPS, microseconds, strict=False):
            self._steps[name].observe(took / 1e6)
        nat_ready.add_done_callback(partial(self._nat_ready, time.monotonic()))

    def _nat_ready(self, since: float, ready: asyncio.Future[None]) -> None:
        if not ready.cancelled():
            self._steps["nat_ready"].observe(time.monotonic() - since)
