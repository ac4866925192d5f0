"""What /proc says about processes and the namespaces they hold (proc(5), namespaces(7)).

A process may end between two looks; everything here then answers as if it had never been.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def pids() -> list[int]:
    """All processes."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""


def _list(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def link_of(path: str) -> str:
    """The target of a link in /proc, or nothing."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def status(pid: int) -> dict[str, str]:
    """The fields of /proc/PID/status; empty once the process is gone."""
    pairs = (line.partition(":") for line in _read(f"/proc/{pid}/status").splitlines())
    return {key: value.strip() for key, _, value in pairs}


def command(pid: int) -> str:
    """The command line, its words joined by spaces; empty for a zombie."""
    return _read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    state = status(pid).get("State", "X")
    return not state.startswith(("Z", "X"))


def descendants(root: int) -> list[int]:
    """Living processes that come from ``root``, without itself."""
    children: dict[int, list[int]] = {}
    for pid in pids():
        parent = status(pid).get("PPid")
        if parent is not None:
            children.setdefault(int(parent), []).append(pid)
    found: list[int] = []
    queue = [root]
    while queue:
        for child in children.get(queue.pop(), []):
            queue.append(child)
            found.append(child)
    return [pid for pid in found if is_alive(pid)]


def network_namespaces() -> set[str]:
    """Every network namespace that some thread is in or some file descriptor holds, as ``net:[inode]``."""
    return {name for pid in pids() for name in _held_by(pid) if name.startswith("net:[")}


def _held_by(pid: int) -> Iterator[str]:
    for task in _list(f"/proc/{pid}/task"):
        yield link_of(f"/proc/{pid}/task/{task}/ns/net")
    for fd in _list(f"/proc/{pid}/fd"):
        yield link_of(f"/proc/{pid}/fd/{fd}")


@dataclass(frozen=True)
class Usage:
    """What a group of processes holds: to compare before and after."""

    processes: int
    threads: int
    descriptors: int
    namespaces: int


def usage(group: list[int]) -> Usage:
    """Count processes, threads, file descriptors and network namespaces of a group."""
    return Usage(
        processes=len(group),
        threads=sum(len(_list(f"/proc/{pid}/task")) for pid in group),
        descriptors=sum(len(_list(f"/proc/{pid}/fd")) for pid in group),
        namespaces=len({n for pid in group for n in _held_by(pid) if n.startswith("net:[")}),
    )


def arp_entries() -> int:
    """Entries in the IPv4 neighbour table, which all namespaces of the machine share."""
    return int(_read("/proc/net/stat/arp_cache").splitlines()[1].split()[0], 16)
