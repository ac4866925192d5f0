"""Memory of an idle tunnel: proportional set size of the processes, and what the kernel has grown by."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support.wait import wait_until

from bench.figures import Column, Table
from bench.lab import Lab, Server, openings

COLUMNS = (
    Column("processes_mib", "processes MiB", 2),
    Column("nat_own_mib", "of it slirp4netns' own", 2),
    Column("kernel_mib", "kernel MiB", 2),
)
_KERNEL = ("Slab", "PageTables", "Percpu", "VmallocUsed")
"""Not KernelStack: with CONFIG_VMAP_STACK, as distributions have it, VmallocUsed has these pages too."""
_SETTLED = 0.005
_PAUSE_S = 0.3


def table() -> Table:
    """Nothing measured yet."""
    return Table("memory", "Memory of an idle tunnel", ("tunnels",), COLUMNS)


def pss_mib(pids: set[int]) -> float:
    """Proportional set size of processes together: what they share is divided among all that have it."""
    return _rolled_up(pids, "Pss")


def own_mib(pids: set[int]) -> float:
    """Memory that each of the processes has to itself. Their proportional shares are no part of anybody's
    growth: of the libraries that were there before they take some from those that had them."""
    return _rolled_up(pids, "Private_(?:Clean|Dirty)")


def _rolled_up(pids: set[int], field: str) -> float:
    """The sum of fields (proc(5), smaps_rollup) in MiB; ended processes count as nothing."""
    total = 0
    for pid in pids:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(map(int, re.findall(rf"^{field}: +(\d+)", rollup, re.MULTILINE)))
    return total / 1024


def kernel_mib() -> float:
    """Slabs, page tables, per-CPU areas, vmalloc with the stacks (proc(5), meminfo); of the whole machine."""
    text = Path("/proc/meminfo").read_text()
    return sum(int(found[1]) for name in _KERNEL if (found := re.search(rf"{name}: +(\d+)", text))) / 1024


def settled(measure: Callable[[], float], timeout_s: float = 20) -> float:
    """A size once it has stopped to move; the last one where it does not."""
    end, last = time.monotonic() + timeout_s, measure()
    while time.monotonic() < end:
        time.sleep(_PAUSE_S)
        now = measure()
        if abs(now - last) <= _SETTLED * last:
            return now
        last = now
    return last


class Sizes:
    """What servers and the kernel hold at a moment, in MiB."""

    def __init__(self, *servers: Server) -> None:
        pids = {pid for server in servers for pid in server.processes()}
        self.processes = settled(lambda: pss_mib(pids))
        self.nats = own_mib({pid for server in servers for pid in server.nats()})
        self.kernel = kernel_mib()

    def per_tunnel(self, before: Sizes, count: int) -> dict[str, float]:
        """Of each of ``count`` tunnels that were opened since."""
        return {
            "processes_mib": (self.processes - before.processes) / count,
            "nat_own_mib": (self.nats - before.nats) / count,
            "kernel_mib": (self.kernel - before.kernel) / count,
        }


@contextmanager
def measuring(lab: Lab) -> Iterator[Callable[[Table], None]]:
    """Each call opens idle tunnels beside those that there are, and closes them."""
    server, count = lab.server, lab.work.idle

    def once(into: Table) -> None:
        known = server.nats()
        before = Sizes(server)
        running = openings([server], count, 4)
        try:
            running.start()
            result = running.result()
            assert not result["errors"], result["errors"]
            into.add((str(count),), Sizes(server).per_tunnel(before, count))
        finally:
            running.close()
        wait_until(lambda: server.nats() <= known, "the tunnels are undone", 120)

    yield once
