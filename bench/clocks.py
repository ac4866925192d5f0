"""Processor time of other processes, finer than the clock ticks of proc(5)."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED = 2


@dataclass(frozen=True)
class Cpu:
    """Seconds. total: to the nanosecond, of all threads, ended ones too. user, system: what proc(5) splits it
    into, in ticks."""

    total: float
    user: float
    system: float

    def __add__(self, other: Cpu) -> Cpu:
        """Both together."""
        return Cpu(self.total + other.total, self.user + other.user, self.system + other.system)

    def since(self, before: Cpu) -> Cpu:
        """What was used meanwhile: the total split as the ticks of that time are."""
        total = self.total - before.total
        user, system = self.user - before.user, self.system - before.system
        share = user / (user + system) if user + system > 0 else 0.0
        return Cpu(total, total * share, total * (1 - share))


def cpu(pid: int) -> Cpu:
    """Of one process: clock_getcpuclockid(3) for the total, proc(5) for the split. Raises OSError."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    total = time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    return Cpu(total, int(fields[11]) / _TICKS, int(fields[12]) / _TICKS)


def cpu_of(pids: Iterable[int]) -> Cpu:
    """Of several together."""
    return sum((cpu(pid) for pid in pids), Cpu(0.0, 0.0, 0.0))


def yardstick() -> float:
    """CPU seconds of a fixed piece of work: interpreter, memory, and datagrams over the loopback.

    How much the machine gets done in a second of CPU just now: neighbours share its caches and its cores.
    """
    began = time.thread_time()
    block = bytes(1400)
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())
        for _ in range(1000):
            sock.send(block)
            hashlib.blake2b(sock.recv(2048)).digest()
            sum(range(200))
    return time.thread_time() - began


def stolen() -> tuple[float, float]:
    """Ticks that the hypervisor gave to others, and all ticks, of all cores (proc(5), /proc/stat)."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return ticks[7], sum(ticks)
