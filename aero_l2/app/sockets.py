"""Listening sockets that were there before the service, as the supervisor names them."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from ipaddress import ip_address

from netns.supervisor import LISTEN_FDS_VARIABLE


def handed_over() -> tuple[socket.socket, ...]:
    """Those sockets, if any; the supervisor has checked what they are."""
    descriptors = [int(fd) for fd in os.environ.pop(LISTEN_FDS_VARIABLE, "").split(",") if fd]
    sockets = tuple(socket.socket(fileno=descriptor) for descriptor in descriptors)
    for sock in sockets:
        sock.set_inheritable(False)
        sock.setblocking(False)
    return sockets


def most_open(sockets: Sequence[socket.socket]) -> tuple[str, int]:
    """The first address that more than this host can reach, or the first: what warnings are about."""
    names = [sock.getsockname()[:2] for sock in sockets]
    addresses = [(str(host).partition("%")[0], int(port)) for host, port in names]
    return next((one for one in addresses if not ip_address(one[0]).is_loopback), addresses[0])
