"""System calls that Python 3.11 lacks: namespaces, mounts, capabilities, prctl.

Each raises OSError with the call's errno. Numbers and structures are those of the named man pages.
"""

import ctypes
import os
import socket
import struct
from collections.abc import Iterable
from enum import IntEnum, IntFlag

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_libc.connect.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_libc.syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_uint)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)

_PIDFD_GETFD = 438  # on every machine
_CAPABILITY_VERSION_3 = 0x20080522


class Namespace(IntFlag):
    """Namespace flags of clone(2)."""

    MOUNT = 0x00020000
    USER = 0x10000000
    NET = 0x40000000


class Mount(IntFlag):
    """Mount flags of mount(2)."""

    READ_ONLY = 1
    NOSUID = 2
    NOEXEC = 8
    REMOUNT = 32
    BIND = 4096
    REC = 16384
    PRIVATE = 1 << 18
    SLAVE = 1 << 19


class Capability(IntEnum):
    """The capabilities that any process of ours ever holds; capabilities(7)."""

    SETPCAP = 8
    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    SYS_ADMIN = 21


class Prctl(IntEnum):
    """Operations of prctl(2)."""

    SET_PDEATHSIG = 1
    SET_DUMPABLE = 4
    SET_NAME = 15
    SET_SECCOMP = 22
    CAPBSET_READ = 23
    CAPBSET_DROP = 24
    SET_SECUREBITS = 28
    SET_CHILD_SUBREAPER = 36
    SET_NO_NEW_PRIVS = 38
    CAP_AMBIENT = 47


SECUREBITS_LOCKED = 0b1110_1111
"""NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE on, KEEP_CAPS off, all locked; capabilities(7)."""


def _check(result: int, doing: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{doing}: {os.strerror(code)}")


def unshare(flags: Namespace) -> None:
    """Move the calling thread (user and mount namespaces: the process) into new namespaces; unshare(2)."""
    _check(_libc.unshare(int(flags)), "unshare")


def setns(fd: int, kind: Namespace) -> None:
    """Move the calling thread into the namespace behind ``fd``; setns(2)."""
    _check(_libc.setns(fd, int(kind)), "setns")


def mount(source: str, target: str, kind: str, flags: Mount | int, data: str = "") -> None:
    """mount(2)."""
    done = _libc.mount(source.encode(), target.encode(), kind.encode(), int(flags), data.encode())
    _check(done, f"mount {target}")


def umount(target: str) -> None:
    """Detach a mount; umount2(2) with MNT_DETACH."""
    _check(_libc.umount2(target.encode(), 2), f"umount {target}")


def prctl(operation: Prctl, value: int = 0, third: int = 0) -> int:
    """prctl(2) for operations that take numbers."""
    result = int(_libc.prctl(int(operation), value, third, 0, 0))
    _check(result, f"prctl {operation.name}")
    return result


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """A duplicate, close-on-exec, of the descriptor ``fd`` of another process; pidfd_getfd(2)."""
    result = int(_libc.syscall(_PIDFD_GETFD, pidfd, fd, 0))
    _check(result, "pidfd_getfd")
    return result


def disconnect(fd: int) -> None:
    """Have a TCP socket reset its connection and let go of all data, at once; connect(2), AF_UNSPEC."""
    _check(_libc.connect(fd, struct.pack("=H14x", socket.AF_UNSPEC), 16), "disconnect")


def drop_bounding_set(keep: Iterable[Capability] = ()) -> None:
    """Drop every capability but ``keep`` from the bounding set, so that no exec can bring it back."""
    kept = frozenset(int(capability) for capability in keep)
    for number in range(64):
        if number in kept:
            continue
        try:
            prctl(Prctl.CAPBSET_DROP, number)
        except OSError:
            if number == 0:
                raise
            return  # EINVAL: one past the kernel's last capability


def set_capabilities(keep: Iterable[Capability] = (), *, effective: bool = True) -> None:
    """Make the permitted set exactly ``keep``, and the effective set that or nothing, the inheritable set
    empty; capset(2)."""
    bits = sum(1 << int(capability) for capability in keep)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    low, high = bits & 0xFFFFFFFF, bits >> 32
    now = (low, high) if effective else (0, 0)
    data = ctypes.create_string_buffer(struct.pack("=6I", now[0], low, 0, now[1], high, 0))
    _check(_libc.capset(header, data), "capset")


def set_process_name(name: str) -> None:
    """Name shown by ps and top, at most 15 bytes."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    prctl(Prctl.SET_NAME, ctypes.addressof(buffer))
