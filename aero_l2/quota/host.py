"""What the host still has for tunnels, read from /proc and the process's cgroups (proc(5), cgroups(7))."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from aero_l2.quota import localports
from aero_l2.quota.capacity import PER_TUNNEL, Room, Stock
from aero_l2.quota.cgroups import cgroups_of, number
from aero_l2.quota.tcpmemory import tcp_memory

_KIB: Final = 1024


class Host:
    """Reads what is left, each time anew. A file that is missing or says nonsense limits nothing.

    root: where the host's /proc and /sys are found.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._memory = cgroups_of(root, "memory")
        self._pids = cgroups_of(root, "pids")
        self._user = self._processes_of_user()

    def room(self, active: int) -> Room:
        """What there is now, while `active` tunnels are open: of several limits of a kind the tightest."""
        return Room(
            pids=_tightest(self._pids_left(active)),
            memory=_tightest(self._memory_left()),
            conntrack=self._conntrack_left(),
            ports=self._ports_left(),
            tcp=tcp_memory(self._root),
        )

    def _memory_left(self) -> Iterator[Stock]:
        text = self._text("proc/meminfo")
        fields = {name: number(rest.split()[0]) for name, rest in _pairs(text) if rest}
        total, left = fields.get("MemTotal"), fields.get("MemAvailable")
        if total is not None and left is not None:
            yield Stock(total * _KIB, left * _KIB, "MemAvailable")
        for cgroup in self._memory:
            yield from cgroup.memory()

    def _pids_left(self, active: int) -> Iterator[Stock]:
        for cgroup in self._pids:
            yield from cgroup.pids()
        limits = (
            (name, number(self._text(f"proc/sys/kernel/{name}"))) for name in ("pid_max", "threads-max")
        )
        running = number(self._text("proc/loadavg").partition("/")[2].partition(" ")[0])
        for name, limit in limits:
            if limit is not None and running is not None:
                yield Stock(limit, limit - running, f"kernel.{name}")
        limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
        if limit != resource.RLIM_INFINITY:
            yield Stock(limit, limit - self._user - active * PER_TUNNEL["pids"], "RLIMIT_NPROC")

    def _conntrack_left(self) -> Stock | None:
        """Of the host's own namespace: NAT processes' connections are tracked there, if any are at all."""
        most = number(self._text("proc/sys/net/netfilter/nf_conntrack_max"))
        count = number(self._text("proc/sys/net/netfilter/nf_conntrack_count"))
        if not most or not count:
            return None  # without one entry, ours included, nothing there asks for tracking
        return Stock(most, most - count, "net.netfilter.nf_conntrack_max")

    def _ports_left(self) -> Stock | None:
        """For UDP, where each socket takes one: NAT processes have theirs in the host's own namespace.

        Sockets on ports that are not of the range count too: /proc/net/sockstat does not tell them apart.
        """
        given = localports.local_ports(self._text(localports.PATH))
        if given is None:
            return None
        fields = dict(_pairs(self._text("proc/net/sockstat") + self._text("proc/net/sockstat6")))
        words = [fields.get(name, "").split() for name in ("UDP", "UDP6")]
        used = sum(number(found[1]) or 0 for found in words if len(found) > 1)
        return Stock(len(given), len(given) - used, localports.NAME)

    def _processes_of_user(self) -> int:
        """Threads that count against RLIMIT_NPROC before there is a tunnel, as far as /proc shows them."""
        threads = 0
        for entry in os.scandir(self._root / "proc"):
            if entry.name.isdecimal():
                fields = dict(_pairs(self._text(f"proc/{entry.name}/status")))
                is_ours = fields.get("Uid", "").split()[:1] == [str(os.getuid())]
                threads += (number(fields.get("Threads", "")) or 0) if is_ours else 0
        return threads

    def _text(self, path: str) -> str:
        try:
            return (self._root / path).read_text()
        except OSError:
            return ""


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        yield name, rest.strip()


def _tightest(stocks: Iterator[Stock]) -> Stock | None:
    return min(stocks, key=lambda stock: stock.left, default=None)
