"""What /proc tells of processes (proc(5)), as far as this one may see it."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from typing import Final

_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_BOOTED: Final = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process, or of several together. cpu_s: of processor time. memory: bytes that are in RAM.

    started: unix seconds, of the oldest. fds, max_fds: NaN where the system does not tell.
    """

    count: int = 0
    cpu_s: float = 0.0
    memory: int = 0
    threads: int = 0
    fds: float = 0.0
    max_fds: float = 0.0
    started: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        starts = [one for one in (self.started, other.started) if one]
        return Usage(
            self.count + other.count,
            self.cpu_s + other.cpu_s,
            self.memory + other.memory,
            self.threads + other.threads,
            self.fds + other.fds,
            self.max_fds + other.max_fds,
            min(starts, default=0.0),
        )


def usage_of(pid: int, max_fds: float | None = None) -> Usage | None:
    """What a process uses now, None once it has ended. max_fds: its limit, where that is known already."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
        user, system, threads, started, pages = (int(fields[n]) for n in (11, 12, 17, 19, 21))
    except (OSError, ValueError, IndexError):
        return None
    if fields[0] in (b"Z", b"X"):
        return None
    return Usage(
        count=1,
        cpu_s=(user + system) * _TICK_S,
        memory=pages * _PAGE,
        threads=threads,
        fds=open_fds(pid),
        max_fds=max_fds_of(pid) if max_fds is None else max_fds,
        started=_BOOTED + started * _TICK_S,
    )


def open_fds(pid: int) -> float:
    """Open descriptors: since Linux 6.2 that is the directory's size, for anybody; else they are listed."""
    try:
        return os.stat(f"/proc/{pid}/fd").st_size or len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return math.nan


def max_fds_of(pid: int) -> float:
    """The soft limit of open descriptors."""
    try:
        with open(f"/proc/{pid}/limits") as file:
            line = next((line for line in file if line.startswith("Max open files")), "")
        value = line.split()[3]
    except (OSError, IndexError):
        return math.nan
    return math.inf if value == "unlimited" else float(value)


def cpu_seconds(pid: int) -> float:
    """Processor time of a process, by its clock (clock_getcpuclockid(3)): one system call. Raises OSError."""
    return time.clock_gettime(~pid << 3 | 2)


def children_of(pid: int, name: str) -> list[int]:
    """The children of a process's main thread that are called so; none where the system does not tell."""
    found = []
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            children = [int(word) for word in file.read().split()]
    except (OSError, ValueError):
        return []
    for child in children:
        try:
            with open(f"/proc/{child}/comm") as file:
                if file.read().strip() == name:
                    found.append(child)
        except OSError:
            continue
    return found
