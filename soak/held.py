"""What a server's processes hold at a moment: to compare before and after."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from support import procfs

from aero_l2.app.memory import EVERY_S
from bench.lab import Server
from bench.memory import settled

_LOOK_S = 1.0
ROLES = ("launch", "netd", "server")


@dataclass(frozen=True)
class Held:
    """Counts of all its processes together; memory in MiB.

    pss: proportional set size (proc(5), smaps_rollup) of each process that stays. own: the part of it that no
    file is behind; of the rest some is always shared with whoever else runs Python just now.
    """

    processes: int
    threads: int
    descriptors: int
    namespaces: int
    pss: dict[str, float]
    own: dict[str, float]

    @classmethod
    def by(cls, server: Server, pids: dict[str, int]) -> Self:
        """Now. pids: of `staying`."""
        usage = procfs.usage(sorted(server.processes()))
        return cls(
            usage.processes,
            usage.threads,
            usage.descriptors,
            usage.namespaces,
            {role: rolled_up(pid, "Pss") for role, pid in pids.items()},
            {role: rolled_up(pid, "Pss_Anon") for role, pid in pids.items()},
        )

    @property
    def counts(self) -> dict[str, int]:
        """What has to be as many as before."""
        names = ("processes", "threads", "descriptors", "namespaces")
        return {name: getattr(self, name) for name in names}


def staying(server: Server) -> dict[str, int]:
    """The processes that live as long as the server does, by role; to be asked while there are no others."""
    assert server.proxy is not None
    return {role: server.proxy.one(role) for role in ROLES}


def rolled_up(pid: int, field: str) -> float:
    """A field of smaps_rollup in MiB; 0 for a process that has ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, re.findall(rf"^{field}: +(\d+)", rollup, re.MULTILINE))) / 1024


def live_blocks(server: Server) -> int:
    """Memory blocks that Python objects of the server are in, by its metric; unlike the pages of a heap they
    depend on no crowd that was there before."""
    assert server.proxy is not None
    return int(server.proxy.metric("aero_l2_python_blocks"))


def when_settled(
    server: Server, pids: dict[str, int], like: Held | None = None, patience_s: float = 60
) -> Held:
    """Once the server has given back what it does not use, memory has stopped to move and, where there is
    one to compare with, nothing is left that it has not; after ``patience_s`` in any case."""
    end = time.monotonic() + patience_s
    time.sleep(EVERY_S + _LOOK_S)
    settled(lambda: sum(Held.by(server, pids).own.values()))
    while like is not None and Held.by(server, pids).counts != like.counts and time.monotonic() < end:
        time.sleep(0.2)
    return Held.by(server, pids)
