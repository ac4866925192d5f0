"""TAP devices by their ioctls; tun(4), kernel documentation networking/tuntap.rst, netdevice(7).

A device belongs to the network namespace of the thread that opens it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from aero_l2.attach.errors import TapUnusable

DEVICE: Final = "/dev/net/tun"
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_TUNSETIFF, _TUNSETCARRIER = 0x400454CA, 0x400454E2
_TAP_NO_PI: Final = 0x0002 | 0x1000
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_UP: Final = 1


def open_tap(name: str) -> int:
    """The descriptor of a TAP of that name: the one there is, or a new one that goes with the descriptor.

    One read or write is one frame. Raises TapUnusable.
    """
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise TapUnusable(f"{name!r} is no name for an interface: letters, digits, _ . and -, at most 15")
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise TapUnusable(_without_device(error)) from None
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP_NO_PI))
    except OSError as error:
        os.close(fd)
        raise TapUnusable(_without_tap(name, error)) from None
    return fd


def _without_device(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return f"{DEVICE} is missing: load the module (modprobe tun), or pass the device into the container"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"no permission on {DEVICE}: make it 0666 as most systems have it (chmod, or a udev rule)"
    return f"{DEVICE}: {error.strerror}"


def _without_tap(name: str, error: OSError) -> str:
    if error.errno == errno.EPERM:
        with ThreadPoolExecutor(1) as aside:  # netlink's library wants an event loop of its own
            whose = aside.submit(_whose, name).result()
        if whose is not None:
            return (
                f"there is a TAP {name}, which is for {whose}: take another name, or have root make it anew"
            )
        return (
            f"no permission to make the TAP {name}: run this with CAP_NET_ADMIN, or have root make it first "
            f"(ip tuntap add {name} mode tap user {os.geteuid()}; ip link set {name} up)"
        )
    if error.errno == errno.EBUSY:
        return f"the TAP {name} is in use by another program: end that, or take another name"
    if error.errno == errno.EINVAL:
        return f"there is an interface {name} that is no TAP: take another name"
    return f"cannot make the TAP {name}: {error.strerror}"


def _whose(name: str) -> str | None:
    """Whom the interface is for, None if there is none of that name."""
    try:
        with IPRoute() as route:
            found = list(route.link("get", ifname=name))
    except (NetlinkError, OSError):
        return None
    for link in found:
        user = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_TUN_OWNER")
        group = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_TUN_GROUP")
        whose = [
            f"{kind} {number}" for kind, number in (("user", user), ("group", group)) if number is not None
        ]
        return " and ".join(whose) or "others"
    return None


def bring_up(name: str) -> None:
    """Set the interface up, unless it is. Raises TapUnusable."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH22x", name.encode(), 0)
        try:
            (flags,) = struct.unpack_from("H", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)
            if not flags & _UP:
                fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags | _UP))
        except PermissionError:
            raise TapUnusable(
                f"no permission to bring {name} up: have root do it (ip link set {name} up)"
            ) from None
        except OSError as error:
            raise TapUnusable(f"cannot bring {name} up: {error.strerror}") from None


def set_carrier(fd: int, *, on: bool) -> None:
    """Plug the cable of a TAP in or out, for its interface's users to see; nothing if it is down."""
    try:
        fcntl.ioctl(fd, _TUNSETCARRIER, struct.pack("i", on))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADFD, errno.EPERM, errno.EIO):
            raise
