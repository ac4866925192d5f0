"""Listening sockets that whoever started us holds: socket activation, sd_listen_fds(3).

systemd makes the socket, keeps it while the service is restarted and passes it on as descriptor 3 and
following. LISTEN_PID names the process that is meant, LISTEN_FDS how many there are, LISTEN_FDNAMES what
they are called, with colons between.
"""

import os
import socket
from collections.abc import Mapping

from netns.errors import LaunchError

FIRST = 3
MOST = 64
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def handed_over(environment: Mapping[str, str], pid: int) -> list[int]:
    """The descriptors that are meant for the process ``pid``, each checked to be a listening TCP socket.

    Raises LaunchError with the line of the .socket unit to change.
    """
    if environment.get("LISTEN_PID") != str(pid):
        return []
    count = environment.get("LISTEN_FDS", "")
    if not (count.isascii() and count.isdigit() and int(count) <= MOST):
        raise LaunchError(f"LISTEN_FDS={count[:20]!r} is no number of sockets (0 to {MOST})")
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    descriptors = list(range(FIRST, FIRST + int(count)))
    for index, descriptor in enumerate(descriptors):
        name = names[index] if index < len(names) and names[index] else "without a name"
        _check(descriptor, f"descriptor {descriptor} of LISTEN_FDS ({name[:40]!r})")
    return descriptors


def _check(descriptor: int, called: str) -> None:
    try:
        duplicate = socket.socket(fileno=os.dup(descriptor))
    except OSError as error:
        raise LaunchError(f"{called} is no socket: {error.strerror}") from error
    with duplicate as sock:
        if sock.family not in _FAMILIES:
            raise LaunchError(f"{called} is no internet socket: ListenStream= takes a port or ADDRESS:PORT")
        if sock.type != socket.SOCK_STREAM or sock.proto != socket.IPPROTO_TCP:
            raise LaunchError(f"{called} is no TCP socket: use ListenStream=")
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise LaunchError(f"{called} does not listen: use Accept=no (the default)")
