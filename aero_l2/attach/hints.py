"""The options that join a machine to a socket of ours, ready to be copied. Pure."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from aero_l2.attach.errors import SocketUnusable

CARD: Final = "-device virtio-net-pci,netdev=n0,romfile="


def qemu(path: Path, *, listens: bool) -> str:
    """Options of QEMU 7.2 and later. listens: whether QEMU does. A comma is doubled: qemu(1)."""
    server = "on" if listens else "off"
    value = f"stream,id=n0,server={server},addr.type=unix,addr.path={str(path).replace(',', ',,')}"
    return f"-netdev {shlex.quote(value)} {CARD}"


def uml(path: Path) -> str:
    """The argument of User Mode Linux (kernel documentation, virt/uml/user_mode_linux_howto_v2).

    Raises:
        SocketUnusable: the path has a character that it cannot hold.
    """
    if "," in str(path) or any(character.isspace() for character in str(path)):
        raise SocketUnusable(
            f"{path}: User Mode Linux takes no path with a comma or a space: take another path"
        )
    own = f"{path}.uml"
    return shlex.quote(f"vec0:transport=bess,dst={path},src={own},depth=64,gro=0,vec=0")


def tap(name: str) -> str:
    """What to do with an interface."""
    return (
        f"{name} is up: put it into a bridge (ip link set {name} master BRIDGE) or a namespace "
        f"(ip link set {name} netns NAMESPACE), and have a lease asked for there"
    )
