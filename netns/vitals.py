"""What the kernel says about a NAT process: proc(5) from outside, and its TAP by rtnetlink(7) from inside."""

import errno
import os
import socket
import struct
from typing import Final

from netns import netlink
from netns.spec import NAT_NETWORK

_QUESTION: Final = NAT_NETWORK[3]
"""An address that slirp4netns answers ARP for and that nothing else uses: its name server's."""
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")

_GET_LINK, _NEW_NEIGHBOUR, _DELETE_NEIGHBOUR = 18, 28, 29
_REQUEST, _ACKNOWLEDGE, _CREATE = 0x1, 0x4, 0x400
_ERROR = 0x2
_IFNAME, _STATS64 = 3, 23  # IFLA_*, linux/if_link.h
_STATISTICS: Final = struct.Struct("=QQ40xQ")
"""Of struct rtnl_link_stats64: rx_packets, tx_packets and tx_dropped."""
_NDA_DST, _NTF_USE = 1, 1  # linux/neighbour.h


def pid_of(pidfd: int) -> int | None:
    """The process behind a pidfd, None once it has ended and was reaped; pidfd_open(2).

    Raises OSError (EBADF) for a descriptor that is no pidfd.
    """
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as about:
        pids = [line.split()[1] for line in about if line.startswith("Pid:")]
    if not pids:
        raise OSError(errno.EBADF, "not a process's descriptor")
    return int(pids[0]) if int(pids[0]) > 0 else None


def parent_of(pid: int) -> int:
    """The pid of a process's parent. Raises OSError."""
    return int(_about(pid, "stat").rpartition(b")")[2].split()[1])


def state_and_sleeps(pid: int) -> tuple[str, int]:
    """`health.Signs.state` and `sleeps`. Raises OSError."""
    about = _about(pid, "status")
    try:
        return _value(about, b"\nState:")[:1].decode("ascii"), int(
            _value(about, b"\nvoluntary_ctxt_switches:")
        )
    except ValueError as error:
        raise OSError(errno.EBADMSG, f"/proc/{pid}/status: {error}") from error


def cpu_s(pid: int) -> float:
    """CPU time in seconds, of user and system together. Raises OSError."""
    user, system = _about(pid, "stat").rpartition(b")")[2].split()[11:13]
    return (int(user) + int(system)) / _TICKS_PER_S


def ask(route: socket.socket) -> int:
    """Have the kernel ask the NAT process by ARP; what that took from tap1 and gave to it before, in packets.

    Until `forget`, this takes a place in the neighbour table, which all namespaces share. Raises OSError.
    """
    index, given, taken, _ = _link(route)
    forget(route, index)
    _change(route, _NEW_NEIGHBOUR, _CREATE, _neighbour(index, _NTF_USE))
    return given + taken


def taken_and_lost(route: socket.socket) -> tuple[int, int]:
    """Packets that the NAT process has read from tap1, and those lost there. Raises OSError."""
    _, _, taken, lost = _link(route)
    return taken, lost


def forget(route: socket.socket, index: int | None = None) -> None:
    """Undo `ask`; nothing happens where there is nothing to undo. Raises OSError."""
    if index is None:
        index = _link(route)[0]
    try:
        _change(route, _DELETE_NEIGHBOUR, 0, _neighbour(index, 0))
    except FileNotFoundError:
        return


def _about(pid: int, name: str) -> bytes:
    fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def _value(about: bytes, name: bytes) -> bytes:
    """What stands behind ``name`` on its line. Raises ValueError."""
    start = about.index(name) + len(name)
    return about[start : about.index(b"\n", start)].strip()


def _link(route: socket.socket) -> tuple[int, int, int, int]:
    """Index of tap1, and the packets that the NAT process gave to it and took from it, and that were lost."""
    request = struct.pack("=16x") + netlink.string(_IFNAME, "tap1")
    route.send(struct.pack("=IHHII", 16 + len(request), _GET_LINK, _REQUEST, 1, 0) + request)
    for kind, payload in netlink.split(route.recv(65536)):
        if kind == _ERROR:
            netlink.raise_error(payload)
        statistics = dict(netlink.attributes(payload[16:])).get(_STATS64, b"")
        if len(statistics) >= _STATISTICS.size:
            return struct.unpack_from("=i", payload, 4)[0], *_STATISTICS.unpack_from(statistics)
    raise OSError(errno.EBADMSG, "no statistics of tap1")


def _neighbour(index: int, flags: int) -> bytes:
    """struct ndmsg and the address."""
    about = struct.pack("=BxxxiHBB", socket.AF_INET, index, 0, flags, 0)
    return about + netlink.attribute(_NDA_DST, _QUESTION.packed)


def _change(route: socket.socket, kind: int, flags: int, request: bytes) -> None:
    header = struct.pack("=IHHII", 16 + len(request), kind, _REQUEST | _ACKNOWLEDGE | flags, 1, 0)
    route.send(header + request)
    for answer, payload in netlink.split(route.recv(65536)):
        if answer == _ERROR:
            netlink.raise_error(payload)
