"""Who is at the other end of the admin socket (unix(7), SO_PEERCRED; docs/adr/0028).

The server lives in a user namespace that maps one user, the service's, as 0. Every other one, root of the
host too, is seen as the overflow uid. Such a one is root where the socket's file is still the service user's
with mode 0600: nobody else could connect then.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_UCRED: Final = struct.Struct("3i")
_OPEN_TO_OTHERS: Final = 0o077
_UID_MAP: Final = Path("/proc/self/uid_map")


class Stranger(Exception):
    """Neither the service user nor root, or it cannot be told; its text is for people."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks: uid on the host, and process, 0 where that is in another pid namespace."""

    uid: int
    pid: int


def peer_of(connection: socket.socket, file: int) -> Peer:
    """Who has connected. file: the listening socket's own (`netns.adminsocket`). Raises Stranger."""
    pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    about = os.fstat(file)
    is_private = about.st_uid == os.geteuid() and not about.st_mode & _OPEN_TO_OTHERS
    return judge(uid, pid, os.geteuid(), own_uid(), is_private=is_private)


def judge(uid: int, pid: int, our_uid: int, our_uid_outside: int, *, is_private: bool) -> Peer:
    """Pure: uid and pid as the kernel names them here, our uid here and outside, whether the socket's file is
    still ours alone. Raises Stranger."""
    if uid == our_uid:
        return Peer(our_uid_outside, pid)
    if not is_private:
        raise Stranger(
            "the socket is no longer the service user's alone, so whether you are root cannot be told: "
            "chmod 600 it, or start the server anew"
        )
    return Peer(0, pid)


def own_uid() -> int:
    """Our uid as the host (the parent user namespace) has it: user_namespaces(7)."""
    inside = os.geteuid()
    for line in _UID_MAP.read_text().splitlines():
        first, outside, count = map(int, line.split())
        if first <= inside < first + count:
            return outside + inside - first
    return inside
