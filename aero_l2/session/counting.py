"""What the tunnels' namespaces count, brought into the process's metrics.

The kernel counts each tunnel from its start; what was seen last is kept here, so a restart of the helper
that reads the counters counts nothing twice. One tunnel is read at a time, the readings spread evenly.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import Counter

from aero_l2.observe.metrics import Metrics
from aero_l2.observe.metrics.traffic import DENIED_REASONS
from aero_l2.tasks import spawn

INTERVAL_S: Final = 2.0
"""Each tunnel is read this often, unless there are so many that `PAUSE_S` makes a round take longer."""
PAUSE_S: Final = 0.01
"""Between two readings at least: one takes each side up to 0.8 ms of CPU time."""
LAST_READING_S: Final = 0.2
"""What the reading at a tunnel's end may take; it delays the end of its namespace."""
_LAST_READINGS_AT_ONCE: Final = 32
LOST_RX: Final = {
    "full_queue_rx": "queue",
    "limit_bytes_rx": "limit_bytes",
    "limit_new_flows": "limit_new_flows",
    "limit_server": "limit_server",
    "limit_fragments": "limit_fragments",
    "limit_dns": "limit_dns",
}
LOST_TX: Final = {
    "full_queue_tx": "queue",
    "limit_bytes_tx": "limit_bytes",
    "limit_pings": "limit_pings",
}
"""Of `netns.ruleset.LOST_COUNTERS` each with the cause it stands for in `aero_l2_frames_dropped_total`."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Packets of one tunnel since its start, by the name of what counted them (`netns.ruleset`)."""

    packets: Mapping[str, int] = field(default_factory=dict)

    def since(self, earlier: Reading) -> dict[str, int]:
        """What came between the two; nothing where a counter did not move, or went back."""
        before = earlier.packets
        new = ((name, now - before.get(name, 0)) for name, now in self.packets.items())
        return {name: packets for name, packets in new if packets > 0}

    @property
    def denied(self) -> int:
        """Refused by policy."""
        return self._sum(f"denied_{reason}" for reason in DENIED_REASONS)

    @property
    def udp_flows_refused(self) -> int:
        """Of UDP flows beyond the limit."""
        return self.packets.get("limit_udp", 0)

    @property
    def connects_failed(self) -> int:
        """RSTs and ICMP errors that answered a SYN."""
        return self.packets.get("failed_tcp", 0)

    @property
    def datagrams_failed(self) -> int:
        """ICMP errors about datagrams."""
        return self.packets.get("failed_udp", 0)

    @property
    def dropped(self) -> int:
        """Lost for a limit or a full queue, without an answer."""
        return self._sum((*LOST_RX, *LOST_TX))

    def _sum(self, names: Iterable[str]) -> int:
        return sum(self.packets.get(name, 0) for name in names)


Read = Callable[[], Awaitable[Reading | None]]
"""Reads one tunnel's counters; None where that cannot be done at present."""


class Collector:
    """Reads the counters of every followed tunnel and adds what is new to the metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._is_on = metrics.is_on
        self._counters = counters_of(metrics) if metrics.is_on else {}
        self._followed: OrderedDict[_Tally, None] = OrderedDict()
        self._rounds: asyncio.Task[None] | None = None
        self._last_readings = asyncio.Semaphore(_LAST_READINGS_AT_ONCE)

    @contextlib.asynccontextmanager
    async def following(self, read: Read) -> AsyncIterator[None]:
        """Follow a tunnel while the block runs; its counters are read once more at the end.

        Nothing is read where nothing is counted.
        """
        if not self._is_on:
            yield
            return
        tally = _Tally(read, self._counters)
        self._followed[tally] = None
        if self._rounds is None or self._rounds.done():
            self._rounds = spawn(self._go_round(), name="counters")
        try:
            yield
        finally:
            del self._followed[tally]
            try:
                await self._read_last(tally)
            finally:
                self._rest()

    async def _read_last(self, tally: _Tally) -> None:
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


class _Tally:
    """One tunnel's counters as they were seen last."""

    def __init__(self, read: Read, counters: Mapping[str, tuple[Counter, ...]]) -> None:
        self._read = read
        self._counters = counters
        self._seen = Reading()
        self._reading = asyncio.Lock()

    async def update(self) -> None:
        """Read the counters, never twice at once, and count what is new."""
        async with self._reading:
            now = await self._read()
        if now is not None:
            for name, packets in now.since(self._seen).items():
                for counter in self._counters.get(name, ()):
                    counter.inc(packets)
            self._seen = now


def counters_of(metrics: Metrics) -> dict[str, tuple[Counter, ...]]:
    """What each counter of a namespace moves. Denied names are counted where DNS refuses them."""
    limited, lost_rx, lost_tx = metrics.packets_limited, metrics.dropped_rx, metrics.dropped_tx
    moved: dict[str, tuple[Counter, ...]] = {
        f"denied_{reason}": (counter,) for reason, counter in metrics.policy_denied.items()
    }
    moved |= {f"limit_{limit}": (counter,) for limit, counter in limited.items()}
    moved |= {reason: (counter,) for reason, counter in metrics.packets_ignored.items()}
    moved["failed_tcp"] = (metrics.tcp_connect_fail,)
    moved["failed_udp"] = (metrics.udp_send_fail,)
    moved["limit_udp"] += (metrics.udp_flow_limit_exceeded,)
    for way in ("rx", "tx"):
        moved[f"limit_bytes_{way}"] = moved["limit_bytes"]
    for names, lost in ((LOST_RX, lost_rx), (LOST_TX, lost_tx)):
        for name, cause in names.items():
            moved[name] = (*moved.get(name, ()), lost[cause])
    return moved
