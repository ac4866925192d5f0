"""What the program's processes use, looked at when somebody scrapes; on a thread, for it reads files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from typing import Final

from aero_l2.observe import procstat
from aero_l2.observe.metrics import Metrics
from aero_l2.observe.procstat import Usage

NAT_LOOK_S: Final = 10.0
"""A look at the NAT processes is good for so long: of 1,000 it takes about 30 ms, on a thread."""
_PER_TURN: Final = 50
NETD_NAME: Final = "aero-l2-netd"
"""What netd calls itself; the process name of prctl(2)."""


class Processes:
    """Launch, netd, this one, and the NAT processes of tunnels. Use on one event loop."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._nats: dict[int, float] = {}  # each with its processor time when that was counted last
        self._cpu_seen = {"launch": (0, 0.0), "netd": (0, 0.0), "server": (0, 0.0)}
        self._looked_at = float("-inf")

    @contextlib.contextmanager
    def nat(self, pid: int | None) -> Iterator[None]:
        """A NAT process runs while the block does, in which it is no other's id; None where it has ended."""
        if pid is None or not self._metrics.is_on:
            yield
            return
        self._nats[pid] = 0.0
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                self._count_cpu(pid, procstat.cpu_seconds(pid))
            del self._nats[pid]

    async def look(self) -> None:
        """Bring the metrics up to date."""
        for name, usage, pid in await asyncio.to_thread(_fixed):
            self._show(name, usage)
            self._count_fixed(name, pid, usage.cpu_s)
            if name == "server":
                self._metrics.capacity_used["files"].set(usage.fds)
                self._metrics.capacity_max["files"].set(usage.max_fds)
        if time.monotonic() - self._looked_at >= NAT_LOOK_S:
            await self._look_at_nats()
            self._looked_at = time.monotonic()
        self._metrics.processes["nat"].set(len(self._nats))

    async def _look_at_nats(self) -> None:
        pids, total, max_fds = list(self._nats), Usage(), None
        for start in range(0, len(pids), _PER_TURN):
            some = pids[start : start + _PER_TURN]
            found = await asyncio.to_thread(_usages, some, max_fds)
            for pid, usage in found.items():
                max_fds = usage.max_fds
                total += usage
                if pid in self._nats:
                    self._count_cpu(pid, usage.cpu_s)
        self._show("nat", total)

    def _count_cpu(self, pid: int, seconds: float) -> None:
        """What came since it was counted last; the clock tells more finely than /proc."""
        self._metrics.process_cpu_seconds["nat"].inc(max(0.0, seconds - self._nats[pid]))
        self._nats[pid] = max(seconds, self._nats[pid])

    def _count_fixed(self, name: str, pid: int, seconds: float) -> None:
        """A netd that was replaced counts from its start."""
        seen_pid, seen = self._cpu_seen[name]
        self._metrics.process_cpu_seconds[name].inc(max(0.0, seconds - (seen if pid == seen_pid else 0.0)))
        self._cpu_seen[name] = (pid, seconds)

    def _show(self, name: str, usage: Usage) -> None:
        metrics = self._metrics
        metrics.processes[name].set(usage.count)
        metrics.process_memory[name].set(usage.memory)
        metrics.process_threads[name].set(usage.threads)
        metrics.process_fds[name].set(usage.fds)
        metrics.process_max_fds[name].set(usage.max_fds)
        metrics.process_start_time[name].set(usage.started)


def _fixed() -> list[tuple[str, Usage, int]]:
    """Launch is this process's parent, and netd launch's other child."""
    launch = os.getppid()
    netd = next(iter(procstat.children_of(launch, NETD_NAME)), 0)
    pids = {"launch": launch, "netd": netd, "server": os.getpid()}
    return [(name, procstat.usage_of(pid) or Usage(), pid) for name, pid in pids.items()]


def _usages(pids: list[int], max_fds: float | None) -> dict[int, Usage]:
    found = ((pid, procstat.usage_of(pid, max_fds)) for pid in pids)
    return {pid: usage for pid, usage in found if usage is not None}
