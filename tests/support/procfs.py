"""What /proc says about processes and the namespaces they hold (proc(5), namespaces(7)).

A process may end between two looks; everything here then answers as if it had never been.
"""

import os
import subprocess
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


def started(pid: int) -> tuple[int, int]:
    """What puts processes in the order in which they were started, whose ids begin anew after pid_max."""
    about = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (int(about[19]) if about else 0, pid)


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    state = status(pid).get("State", "X")
    return not state.startswith(("Z", "X"))


def descendants(*roots: int) -> list[int]:
    """Living processes that come from ``roots``, without these unless one comes from another."""
    children: dict[int, list[int]] = {}
    for pid in pids():
        parent = status(pid).get("PPid")
        if parent is not None:
            children.setdefault(int(parent), []).append(pid)
    found: set[int] = set()
    queue = list(roots)
    while queue:
        new = set(children.get(queue.pop(), [])) - found
        queue += new
        found |= new
    return sorted(pid for pid in found if is_alive(pid))


def namespaces_of(pid: int) -> set[str]:
    """The network namespaces that a process is in or holds by a descriptor, as ``net:[inode]``."""
    links = [f"/proc/{pid}/task/{task}/ns/net" for task in _list(f"/proc/{pid}/task")]
    links += [f"/proc/{pid}/fd/{fd}" for fd in _list(f"/proc/{pid}/fd")]
    return {name for link in links if (name := link_of(link)).startswith("net:[")}


def network_namespaces(of: list[int] | None = None) -> set[str]:
    """Every network namespace that some process is in or holds: of the whole machine, or of some
    processes."""
    return {name for pid in (pids() if of is None else of) for name in namespaces_of(pid)}


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
        namespaces=len(network_namespaces(group)),
    )


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM."""
    return int(status(pid)["VmRSS"].split()[0]) * 1024


def descriptor_limits(pid: int) -> tuple[int, int]:
    """Soft and hard RLIMIT_NOFILE of a process."""
    line = next(
        line for line in _read(f"/proc/{pid}/limits").splitlines() if line.startswith("Max open files")
    )
    soft, hard = line.split()[3:5]
    return int(soft), int(hard)


def arp_cache(column: str) -> int:
    """A number of the IPv4 neighbour table, which all namespaces of the machine share.

    ``entries`` is the table's size; ``table_fulls`` counts refusals because the table was full (arp(7),
    gc_thresh3). By netlink, since /proc shows them in the machine's first namespace only.
    """
    shown = subprocess.run(
        ["ip", "-s", "ntable", "show", "name", "arp_cache"], capture_output=True, text=True, check=True
    )
    words = shown.stdout.split()
    return int(words[words.index(column) + 1])


def cgroups(pid: int) -> str:
    """The cgroups of a process, a line for each hierarchy (cgroups(7))."""
    return _read(f"/proc/{pid}/cgroup")
