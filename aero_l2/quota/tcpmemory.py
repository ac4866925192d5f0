"""How much memory the kernel has for TCP, and how much of it guests' connections may hold (docs/adr/0023)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from aero_l2.quota.capacity import Stock
from aero_l2.quota.cgroups import cgroups_of, number

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_KIB: Final = 1024
_OF_RAM: Final = 16
"""Where net.ipv4.tcp_mem cannot be read, as in containers: by itself the kernel makes it a sixteenth."""
_OF_THE_KERNELS: Final = 2
_OF_A_CGROUPS: Final = 4


def tcp_memory(root: Path) -> Stock | None:
    """Bytes until the kernel presses all TCP connections of the machine; None where nothing says so."""
    mark, used = _mark(root), None
    for name, *words in _lines(root / "proc/net/sockstat"):
        if name == "TCP:" and "mem" in words[:-1]:
            used = number(words[words.index("mem") + 1])
    return None if mark is None or used is None else Stock(mark, mark - used * _PAGE, "net.ipv4.tcp_mem")


def share_of_guests(root: Path = Path("/")) -> int:
    """Bytes that all guests' connections together may hold: half of the kernel's, a quarter of a cgroup's.

    0 where there is nothing to go by.
    """
    mark = _mark(root)
    shares = [] if mark is None else [mark // _OF_THE_KERNELS]
    for cgroup in cgroups_of(root, "memory"):
        shares += [stock.total // _OF_A_CGROUPS for stock in cgroup.memory()]
    return min(shares, default=0)


def _mark(root: Path) -> int | None:
    """The value of tcp(7) from which on the kernel is under pressure, in bytes."""
    for marks in _lines(root / "proc/sys/net/ipv4/tcp_mem"):
        if len(marks) == 3 and (pressure := number(marks[1])):
            return pressure * _PAGE
    for name, *words in _lines(root / "proc/meminfo"):
        if name == "MemTotal:" and words and (total := number(words[0])):
            return total * _KIB // _OF_RAM
    return None


def _lines(path: Path) -> list[list[str]]:
    """The words of each line that has any."""
    try:
        return [words for line in path.read_text().splitlines() if (words := line.split())]
    except OSError:
        return []
