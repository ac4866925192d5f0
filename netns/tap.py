"""TAP devices, by python-pytun; tun(4), kernel documentation networking/tuntap.rst.

The device belongs to the network namespace of the thread that opens it.
"""

import os
import stat
from contextlib import closing

import pytun

from netns.errors import SegmentError, describe_os_error

DEVICE = "/dev/net/tun"


def open_tap(name: str) -> int:
    """Make the TAP ``name`` in the calling thread's namespace; return its non-blocking, close-on-exec fd.

    One read or write is one Ethernet frame, without packet information header. The device is persistent:
    it goes with its namespace, since unregistering it at close would take 30 ms. Raises SegmentError.
    """
    try:
        with closing(pytun.TunTapDevice(name=name, flags=pytun.IFF_TAP | pytun.IFF_NO_PI)) as device:
            device.persist(True)
            fd = os.dup(device.fileno())  # dup sets close-on-exec (PEP 446)
    except (pytun.Error, OSError) as error:
        raise SegmentError(_explain(name, error)) from error
    os.set_blocking(fd, False)
    return fd


def make_tap(name: str) -> None:
    """Make the persistent TAP ``name`` for another process to open. Raises SegmentError."""
    os.close(open_tap(name))


def _explain(name: str, error: Exception) -> str:
    """What is the matter with the device node, in one line."""
    try:
        mode = os.stat(DEVICE)
    except FileNotFoundError:
        return f"{DEVICE} is missing: load the module (modprobe tun) or pass the device into the container"
    except OSError as unreadable:
        return describe_os_error(DEVICE, unreadable)
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        group = stat.S_IRGRP | stat.S_IWGRP
        return (
            f"no permission on {DEVICE} (mode {stat.S_IMODE(mode.st_mode):04o}): make it 0666 by the udev "
            'rule KERNEL=="tun", MODE="0666"'
            f"{', join its group' if mode.st_mode & group == group else ''}, or start the proxy as root"
        )
    code = error.errno if isinstance(error, OSError) else error.args[0] if error.args else None
    if isinstance(code, int):
        return describe_os_error(f"cannot make the TAP {name} ({DEVICE})", OSError(code, os.strerror(code)))
    return f"cannot make the TAP {name} ({DEVICE}): {error}"
