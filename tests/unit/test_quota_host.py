"""What the host has left, read from trees of files as kernels and containers show them."""

import os
import resource
from pathlib import Path

import pytest

from aero_l2.quota.cgroups import cgroups_of
from aero_l2.quota.host import Host

MIB = 1 << 20
MEMINFO = "MemTotal:        4194304 kB\nMemFree:  1024 kB\nMemAvailable:    3145728 kB\n"
UNLIMITED_V1 = "9223372036854771712\n"


def written(root: Path, files: dict[str, str]) -> Path:
    """Files below ``root``, by path."""
    for name, text in {"proc/meminfo": MEMINFO, "proc/loadavg": "0.1 0.2 0.3 2/150 999\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def mounted(kind: str, root: str, point: str, options: str = "rw") -> str:
    """A line of mountinfo (proc_pid_mountinfo(5))."""
    return f"35 24 0:30 {root} {point} rw,nosuid - {kind} {kind} {options}\n"


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    """No RLIMIT_NPROC, whatever the machine has."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_host_without_cgroups(tmp_path: Path, unlimited: None) -> None:
    files = {"proc/sys/kernel/pid_max": "4194304\n", "proc/sys/kernel/threads-max": "1000\n"}
    room = Host(written(tmp_path, files)).room(0)
    assert room.memory is not None
    assert (room.memory.total, room.memory.left, room.memory.by) == (4096 * MIB, 3072 * MIB, "MemAvailable")
    assert room.pids is not None
    assert (room.pids.left, room.pids.by) == (850, "kernel.threads-max")
    assert room.conntrack is None


def test_version_2_the_tightest_of_all_levels_binds(tmp_path: Path, unlimited: None) -> None:
    at = "sys/fs/cgroup"
    files = {
        "proc/self/cgroup": "0::/a.slice/b.service\n",
        "proc/self/mountinfo": mounted("cgroup2", "/", "/sys/fs/cgroup"),
        f"{at}/a.slice/memory.max": f"{512 * MIB}\n",
        f"{at}/a.slice/memory.high": "max\n",
        f"{at}/a.slice/memory.current": f"{400 * MIB}\n",
        f"{at}/a.slice/memory.stat": f"anon 1\ninactive_file {100 * MIB}\nactive_file 7\n",
        f"{at}/a.slice/pids.max": "max\n",
        f"{at}/a.slice/pids.current": "20\n",
        f"{at}/a.slice/b.service/memory.max": "max\n",
        f"{at}/a.slice/b.service/memory.current": f"{300 * MIB}\n",
        f"{at}/a.slice/b.service/pids.max": "100\n",
        f"{at}/a.slice/b.service/pids.current": "12\n",
    }
    host = Host(written(tmp_path, files))
    room = host.room(0)
    assert room.memory is not None
    assert (room.memory.left, room.memory.by) == (212 * MIB, "memory.max of cgroup /a.slice")
    assert room.pids is not None
    assert (room.pids.left, room.pids.by) == (88, "pids.max of cgroup /a.slice/b.service")
    written(tmp_path, {f"{at}/a.slice/memory.high": f"{350 * MIB}\n"})
    tightened = host.room(0).memory
    assert tightened is not None
    assert (tightened.left, tightened.by) == (50 * MIB, "memory.high of cgroup /a.slice")


def test_version_1(tmp_path: Path, unlimited: None) -> None:
    at = "sys/fs/cgroup/memory"
    files = {
        "proc/self/cgroup": "8:pids:/x\n4:memory:/x\n0::/\n",
        "proc/self/mountinfo": mounted("cgroup", "/", "/sys/fs/cgroup/memory", "rw,memory")
        + mounted("cgroup", "/", "/sys/fs/cgroup/pids", "rw,pids")
        + mounted("cgroup2", "/", "/sys/fs/cgroup/unified"),
        f"{at}/memory.limit_in_bytes": UNLIMITED_V1,
        f"{at}/memory.usage_in_bytes": f"{3000 * MIB}\n",
        f"{at}/x/memory.limit_in_bytes": f"{200 * MIB}\n",
        f"{at}/x/memory.usage_in_bytes": f"{150 * MIB}\n",
        f"{at}/x/memory.stat": f"inactive_file 1\ntotal_inactive_file {10 * MIB}\n",
        "sys/fs/cgroup/pids/x/pids.max": "64\n",
        "sys/fs/cgroup/pids/x/pids.current": "60\n",
    }
    room = Host(written(tmp_path, files)).room(0)
    assert room.memory is not None
    assert (room.memory.left, room.memory.by) == (60 * MIB, "memory.limit_in_bytes of cgroup /x")
    assert room.pids is not None
    assert room.pids.left == 4


@pytest.mark.parametrize(
    ("mount_root", "path"),
    [("/docker/abc", "/docker/abc"), ("/", "/"), ("/../..", "/"), ("/docker/abc", "/../other")],
)
def test_container_sees_its_own_group_at_the_mount(tmp_path: Path, mount_root: str, path: str) -> None:
    files = {
        "proc/self/cgroup": f"0::{path}\n",
        "proc/self/mountinfo": mounted("cgroup2", mount_root, "/sys/fs/cgroup"),
        "sys/fs/cgroup/memory.max": "1\n",
    }
    found = cgroups_of(written(tmp_path, files), "memory")
    assert [group.directory for group in found] == [tmp_path / "sys/fs/cgroup"]


def test_nonsense_limits_nothing(tmp_path: Path, unlimited: None) -> None:
    files = {
        "proc/meminfo": "MemTotal\nMemAvailable: lots kB\n\n",
        "proc/loadavg": "",
        "proc/self/cgroup": "nonsense\n::\n",
        "proc/self/mountinfo": "nonsense\n1 2 - cgroup2\n",
        "proc/sys/kernel/pid_max": "-1\n",
    }
    room = Host(written(tmp_path, files)).room(0)
    assert (room.memory, room.pids, room.conntrack) == (None, None, None)


@pytest.mark.parametrize(("count", "left"), [("0", None), ("144", 262_000), ("", None)])
def test_connections_are_a_limit_where_the_host_tracks_any(
    tmp_path: Path, unlimited: None, count: str, left: int | None
) -> None:
    at = "proc/sys/net/netfilter/nf_conntrack"
    files = {f"{at}_max": "262144\n", f"{at}_count": f"{count}\n"}
    found = Host(written(tmp_path, files)).room(0).conntrack
    assert (found.left if found is not None else None) == left


@pytest.mark.parametrize(
    ("given", "left"), [("32768\t60999\n", 27_900), ("", None), ("1\n", None), ("9\t8\n", None)]
)
def test_ports_are_those_of_the_range_less_udp_sockets_of_both_families(
    tmp_path: Path, unlimited: None, given: str, left: int | None
) -> None:
    files = {
        "proc/sys/net/ipv4/ip_local_port_range": given,
        "proc/net/sockstat": "TCP: inuse 5 orphan 0\nUDP: inuse 300 mem 2\nUDPLITE: inuse 7\n",
        "proc/net/sockstat6": "TCP6: inuse 1\nUDP6: inuse 32\n",
    }
    found = Host(written(tmp_path, files)).room(0).ports
    assert (found.left if found is not None else None) == left


def test_limit_of_the_users_processes_counts_its_threads_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 200))
    mine, others = f"{os.getuid()}\t0\t0\t0", "12345\t0\t0\t0"
    files = {
        "proc/1/status": f"Name:\tinit\nUid:\t{others}\nThreads:\t50\n",
        "proc/7/status": f"Name:\ta\nUid:\t{mine}\nThreads:\t3\n",
        "proc/8/status": f"Name:\tb\nUid:\t{mine}\nThreads:\t4\n",
    }
    room = Host(written(tmp_path, files)).room(active=10)
    assert room.pids is not None
    assert (room.pids.left, room.pids.by) == (83, "RLIMIT_NPROC")


def test_this_machine_has_room() -> None:
    room = Host().room(0)
    assert room.memory is not None
    assert 0 < room.memory.left <= room.memory.total
    assert room.pids is not None
    assert 0 < room.pids.left <= room.pids.total
