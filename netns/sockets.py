"""What the kernel holds for TCP connections: proc_net(5), sock_diag(7), linux/inet_diag.h."""

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

from netns import netlink
from netns.syscalls import disconnect, pidfd_getfd

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_UNCOUNTED: Final = os.sysconf("SC_NPROCESSORS_CONF") << 20
_SOCK_DIAG, _BY_FAMILY = 4, 20
_REQUEST, _DUMP = 0x1, 0x300
_SKMEMINFO: Final = 7
_SO_MEMINFO: Final = 55  # asm-generic/socket.h
_STATES: Final = sum(1 << state for state in (1, 2, 4, 5, 8, 9, 11))
"""ESTABLISHED, SYN_SENT, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING: all that a process connects."""
_ASK: Final = struct.pack("=BBBxI48x", socket.AF_INET, socket.IPPROTO_TCP, 1 << (_SKMEMINFO - 1), _STATES)
_ABOUT: Final = struct.Struct("=64xII")
"""struct inet_diag_msg: uid and inode, at its end."""
_MEMORY: Final = struct.Struct("=I12xiI4xI")
"""Of SK_MEMINFO_*: to be read, reserved (at moments negative), to be sent or acknowledged, in the backlog."""


def tcp_memory() -> int:
    """Bytes that all TCP sockets of the machine take at most, whatever their namespace. Raises OSError.

    What a processor has taken or given back since is not in the kernel's count until it is a MiB
    (SK_MEMORY_PCPU_RESERVE, include/net/sock.h).
    """
    with open("/proc/net/sockstat", encoding="ascii") as about:
        for line in about:
            name, *words = line.split()
            if name == "TCP:" and "mem" in words:
                return int(words[words.index("mem") + 1]) * _PAGE + _UNCOUNTED
    raise OSError("/proc/net/sockstat does not tell the memory of TCP")


def held(uid: int) -> dict[int, int]:
    """Bytes by inode, of a user's IPv4 TCP sockets in this namespace, 0 too. Raises OSError.

    One whose connection is over is not among them, whatever it holds still: `held_unseen`.
    """
    found: dict[int, int] = {}
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, _SOCK_DIAG) as connection:
        connection.settimeout(2.0)
        connection.send(struct.pack("=IHHII", 16 + len(_ASK), _BY_FAMILY, _REQUEST | _DUMP, 1, 0) + _ASK)
        for payload in netlink.dumped(connection):
            owner, inode = _ABOUT.unpack_from(payload)
            if owner == uid and inode:
                found[inode] = _taken(payload)
    return found


def _taken(payload: bytes) -> int:
    for kind, value in netlink.attributes(payload[_ABOUT.size :]):
        if kind == _SKMEMINFO:
            return _sum(value)
    return 0


def _sum(memory: bytes) -> int:
    return max(0, sum(_MEMORY.unpack_from(memory))) if len(memory) >= _MEMORY.size else 0


def sockets_of(pid: int) -> Iterator[tuple[int, int]]:
    """Descriptor and inode of each socket of a process. Raises OSError."""
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        try:
            target = os.readlink(f"{folder}/{name}")
        except OSError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            yield int(name), int(target[8:-1])


def held_unseen(pidfd: int, fd: int, inode: int) -> int:
    """Bytes that another process's TCP socket holds, whatever its state; 0 of what is none.

    Raises OSError as `end_connection`.
    """
    with _borrowed(pidfd, fd, inode) as ours:
        if ours is None or ours.proto != socket.IPPROTO_TCP:
            return 0
        return _sum(ours.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 64))


def end_connection(pidfd: int, fd: int, inode: int) -> bool:
    """Reset another process's TCP connection and drop what it holds; False if it is gone by itself.

    The process finds its socket unconnected. Raises OSError: PermissionError without the right to trace the
    process (ptrace(2)).
    """
    with _borrowed(pidfd, fd, inode) as ours:
        if ours is None:
            return False
        disconnect(ours.fileno())
        return True


@contextlib.contextmanager
def _borrowed(pidfd: int, fd: int, inode: int) -> Iterator[socket.socket | None]:
    """The socket behind a descriptor of another process, None if it is not there any more. Raises OSError."""
    try:
        ours = pidfd_getfd(pidfd, fd)
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EBADF):
            yield None
            return
        raise
    if os.fstat(ours).st_ino != inode:
        os.close(ours)
        yield None
        return
    with socket.socket(fileno=ours) as borrowed:
        yield borrowed
