"""What the tunnels' namespaces count, brought into the process's metrics.

The kernel counts each tunnel from its start; what was seen last is kept here, so a restart of the helper
that reads the counters counts nothing twice. One tunnel is read at a time, the readings spread evenly.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, fields
from typing import Final

from aero_l2.observe.metrics import Metrics
from aero_l2.tasks import spawn

INTERVAL_S: Final = 2.0
"""Each tunnel is read this often, unless there are so many that `PAUSE_S` makes a round take longer."""
PAUSE_S: Final = 0.01
"""Between two readings at least: one takes each side up to 0.8 ms of CPU time."""
LAST_READING_S: Final = 0.2
"""What the reading at a tunnel's end may take; it delays the end of its namespace."""
_LAST_READINGS_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class Reading:
    """Packets of one tunnel since its start, by what became of them.

    connects_failed: RSTs and ICMP errors that answered a SYN. datagrams_failed: ICMP errors about datagrams.
    dropped: lost for a limit or a full queue, without an answer.
    """

    denied: int = 0
    udp_flows_refused: int = 0
    connects_failed: int = 0
    datagrams_failed: int = 0
    dropped: int = 0

    def since(self, earlier: Reading) -> Reading:
        """What came between the two; nothing where a counter went back."""
        values = ((getattr(self, f.name), getattr(earlier, f.name)) for f in fields(Reading))
        return Reading(*(max(0, now - then) for now, then in values))


@dataclass(frozen=True, slots=True)
class SegmentCounts:
    """What one tunnel's segment has counted.

    reading: packets, since its start. tcp_flows, udp_flows: active now. dns_…: queries of the guest, those
    that failed other than by policy, and names that policy denied.
    """

    reading: Reading = Reading()
    tcp_flows: int = 0
    udp_flows: int = 0
    dns_queries: int = 0
    dns_failures: int = 0
    dns_denied: int = 0


Read = Callable[[], Awaitable[Reading | None]]
"""Reads one tunnel's counters; None where that cannot be done at present."""


class Collector:
    """Reads the counters of every followed tunnel and adds what is new to the metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._followed: OrderedDict[Tally, None] = OrderedDict()
        self._rounds: asyncio.Task[None] | None = None
        self._last_readings = asyncio.Semaphore(_LAST_READINGS_AT_ONCE)

    @contextlib.asynccontextmanager
    async def following(self, read: Read) -> AsyncIterator[Tally]:
        """Follow a tunnel while the block runs; its counters are read once more at the end."""
        tally = Tally(read, self._metrics)
        self._followed[tally] = None
        if self._rounds is None or self._rounds.done():
            self._rounds = spawn(self._go_round(), name="counters")
        try:
            yield tally
        finally:
            del self._followed[tally]
            try:
                await self._read_last(tally)
            finally:
                self._rest()

    async def _read_last(self, tally: Tally) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_READING_S), self._last_readings:
                await tally.update()

    def _rest(self) -> None:
        if not self._followed and self._rounds is not None:
            self._rounds.cancel()
            self._rounds = None

    async def _go_round(self) -> None:
        while self._followed:
            await asyncio.sleep(max(INTERVAL_S / len(self._followed), PAUSE_S))
            if self._followed:
                tally = next(iter(self._followed))
                self._followed.move_to_end(tally)
                await tally.update()


class Tally:
    """One tunnel's counters. seen: as they were last."""

    def __init__(self, read: Read, metrics: Metrics) -> None:
        self._read = read
        self._metrics = metrics
        self.seen = Reading()
        self._reading = asyncio.Lock()

    async def update(self) -> None:
        """Read the counters, never twice at once, and count what is new."""
        async with self._reading:
            now = await self._read()
        if now is not None:
            self._count(now.since(self.seen))
            self.seen = now

    async def update_soon(self) -> None:
        """`update`, or not, where it takes longer than `LAST_READING_S`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_READING_S):
                await self.update()

    def _count(self, new: Reading) -> None:
        """Denied packets; denied names are counted where DNS refuses them."""
        self._metrics.policy_denied.inc(new.denied)
        self._metrics.udp_flow_limit_exceeded.inc(new.udp_flows_refused)
        self._metrics.tcp_connect_fail.inc(new.connects_failed)
        self._metrics.udp_send_fail.inc(new.datagrams_failed)
        self._metrics.frames_dropped.inc(new.dropped)
