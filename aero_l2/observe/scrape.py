"""Rendering of all metrics for whoever scrapes, beside the tunnels on one event loop.

All values are read at one moment, so that sums hold; their text is made in slices of about a millisecond,
between which the loop runs what else is due. A thread would compete for the interpreter's lock, and hold it
for five milliseconds at a time (sys.getswitchinterval).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from aero_l2.observe.metrics import Metrics
from aero_l2.tasks import spawn

SLICE_S: Final = 0.001
_log = structlog.get_logger("aero_l2.observe")


async def _nothing() -> None:
    """Nothing is to be looked at before."""


class Scrapes:
    """Renders once for all who ask while nothing is being rendered; who asks meanwhile gets the next one, so
    that nobody is told what was before the question.

    prepare: awaited before the values are read; what it looks at is current then.
    """

    def __init__(self, metrics: Metrics, prepare: Callable[[], Awaitable[None]] = _nothing) -> None:
        self._metrics = metrics
        self.prepare = prepare
        self._asked: asyncio.Future[bytes] | None = None
        self._task: asyncio.Task[None] | None = None
        self.renderings = 0

    def ask(self) -> asyncio.Future[bytes]:
        """All metrics in the text format; the future is shared, so nobody may cancel it."""
        if self._asked is None:
            self._asked = asyncio.get_running_loop().create_future()
        if self._task is None:
            self._task = spawn(self._work(), name="scrape")
        return self._asked

    async def _work(self) -> None:
        try:
            while self._asked is not None:
                asked, self._asked = self._asked, None
                try:
                    asked.set_result(await self._render())
                except Exception as failure:
                    _log.exception("metrics cannot be rendered")
                    asked.set_exception(failure)
        finally:
            self._task = None

    async def _render(self) -> bytes:
        self.renderings += 1
        await self.prepare()
        families = list(self._metrics.registry.collect())
        text: list[bytes] = []
        begun = 0.0
        for family in families:
            if time.perf_counter() - begun > SLICE_S:
                await asyncio.sleep(0)
                begun = time.perf_counter()
            text.append(generate_latest(_One(family)))
        return b"".join(text)


class _One(Collector):
    """A registry of one metric."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> list[Metric]:
        """It."""
        return [self._family]
