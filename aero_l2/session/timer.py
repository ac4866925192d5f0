"""The one timer of a tunnel: wakes for the next deadline of its `Lifecycle`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aero_l2.session.lifecycle import Due, Lifecycle


class LifeTimer:
    """Hands what is due to `do`. Whoever changes a deadline of `life` calls `set`."""

    def __init__(self, life: Lifecycle, do: Callable[[Due], None]) -> None:
        self._life = life
        self._do = do
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None

    def look(self) -> None:
        """Do what is due now, then wait for the next deadline."""
        self.stop()
        while (due := self._life.look(time.monotonic(), time.time())) is not None:
            self._do(due)
        self.set()

    def set(self) -> None:
        """Wait for the next deadline, which may be another one than before."""
        self.stop()
        deadline = self._life.next_deadline
        if deadline is not None:
            self._handle = self._loop.call_later(max(0.0, deadline - time.monotonic()), self.look)

    def nat_ready(self) -> None:
        """The NAT process is there."""
        self._life.nat_ready()
        self.set()

    def stop(self) -> None:
        """Wake no more; idempotent."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
