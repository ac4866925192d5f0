"""What the kernel has for TCP, read from trees of files, and what of it is guests'."""

import os
from pathlib import Path

import pytest

from aero_l2.quota.host import Host
from aero_l2.quota.tcpmemory import share_of_guests

PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20
SOCKSTAT = "sockets: used 9\nTCP: inuse 7 orphan 0 tw 3 alloc 8 mem 1000\nUDP: inuse 2 mem 77\n"
MARKS = "proc/sys/net/ipv4/tcp_mem"


def written(root: Path, files: dict[str, str]) -> Path:
    """Files below ``root``, by path; a machine of 4 GiB."""
    usual = {"proc/meminfo": "MemTotal:        4194304 kB\n", "proc/net/sockstat": SOCKSTAT}
    for name, text in (usual | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def cgroup(limit: int) -> dict[str, str]:
    """A container's, with a memory limit."""
    return {
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": "35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n",
        "sys/fs/cgroup/memory.max": f"{limit}\n",
        "sys/fs/cgroup/memory.current": "1\n",
    }


def test_room_ends_where_the_kernel_begins_to_press(tmp_path: Path) -> None:
    stock = Host(written(tmp_path, {MARKS: "3000\t4000\t6000\n"})).room(0).tcp
    assert stock is not None
    assert (stock.total, stock.left) == (4000 * PAGE, 3000 * PAGE)
    assert stock.by == "net.ipv4.tcp_mem"


def test_containers_are_not_shown_the_mark_which_is_a_sixteenth(tmp_path: Path) -> None:
    stock = Host(written(tmp_path, {})).room(0).tcp
    assert stock is not None
    assert (stock.total, stock.left) == (256 * MIB, 256 * MIB - 1000 * PAGE)


@pytest.mark.parametrize("sockstat", ["", "TCP: inuse 7 mem\n", "TCP:\n", "TCP: inuse 1 mem lots\n"])
def test_nothing_is_a_limit_where_nothing_says_so(tmp_path: Path, sockstat: str) -> None:
    assert Host(written(tmp_path, {"proc/net/sockstat": sockstat})).room(0).tcp is None


def test_guests_have_half_of_the_kernels_and_a_quarter_of_a_containers(tmp_path: Path) -> None:
    assert share_of_guests(written(tmp_path, {})) == 128 * MIB
    assert share_of_guests(written(tmp_path, cgroup(1024 * MIB))) == 128 * MIB
    assert share_of_guests(written(tmp_path, cgroup(256 * MIB))) == 64 * MIB
    assert share_of_guests(tmp_path / "nothing") == 0


def test_this_machine_tells() -> None:
    stock = Host().room(0).tcp
    assert stock is not None
    assert 0 < stock.left <= stock.total
    assert 0 < share_of_guests() <= stock.total // 2
