"""What systemd does for a service, as a program under test sees it: notifications and sockets.

From sd_notify(3) and sd_listen_fds(3), sharing no code with the proxy.
"""

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from support import addresses as at
from support.ns import Namespace
from support.wait import wait_until

_CREDENTIALS = struct.Struct("3i")
_HAND_OVER = """
import os, sys
names, *given = sys.argv[1].split(",")
program = sys.argv[2:]
above = [os.dup(int(fd)) for fd in given]
for wanted, fd in enumerate(above, 3):
    os.dup2(fd, wanted)
    os.set_inheritable(wanted, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(given)), LISTEN_FDNAMES=names)
os.execv(program[0], program)
"""


def activated(descriptors: Sequence[int], names: Sequence[str] = ()) -> list[str]:
    """What to put before a program, to be given with its path, that gets these descriptors from 3 on."""
    told = ",".join([":".join(names or ["test.socket"] * len(descriptors)), *map(str, descriptors)])
    return ["/usr/bin/python3", "-I", "-c", _HAND_OVER, told]


def listening(
    where: Namespace, host: str = at.LOOPBACK, *, backlog: int = 4096, dual_stack: bool = False
) -> socket.socket:
    """A socket that listens in a namespace, on any port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET

    def make() -> socket.socket:
        return socket.create_server((host, 0), family=family, backlog=backlog, dualstack_ipv6=dual_stack)

    return where.call(make)


@dataclass(frozen=True)
class Notification:
    """One datagram: when it came, from which process, and what it says."""

    at: float
    pid: int
    fields: dict[str, str]


class Notified:
    """A socket of notifications; what came stands in ``got``, oldest first."""

    def __init__(self, sock: socket.socket, address: str) -> None:
        self.address = address
        self.got: list[Notification] = []
        self._socket = sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            data, extra, _, _ = self._socket.recvmsg(65536, socket.CMSG_SPACE(_CREDENTIALS.size))
            if not data:
                return
            pid = next(
                _CREDENTIALS.unpack(raw)[0] for _, kind, raw in extra if kind == socket.SCM_CREDENTIALS
            )
            pairs = (line.partition("=") for line in data.decode().splitlines())
            self.got.append(Notification(time.monotonic(), pid, {key: value for key, _, value in pairs}))

    def values(self, name: str) -> list[str]:
        """Every value that was given to a name so far."""
        return [one.fields[name] for one in list(self.got) if name in one.fields]

    def wait(self, name: str, count: int = 1, timeout_s: float = 20) -> str:
        """Wait until a name was given a value so many times; the last one."""
        wait_until(lambda: len(self.values(name)) >= count, f"{name} is told {count} times", timeout_s)
        return self.values(name)[-1]

    def close(self) -> None:
        """End the reading."""
        self._socket.shutdown(socket.SHUT_RD)
        self._thread.join(10)
        self._socket.close()


@contextmanager
def notified(address: str, where: Namespace | None = None) -> Iterator[Notified]:
    """Listen at a path that everyone may write to, or (``@name``) at an abstract address of a namespace."""

    def bound() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.bind("\0" + address[1:] if address.startswith("@") else address)
        return sock

    sock = bound() if where is None else where.call(bound)
    if not address.startswith("@"):
        os.chmod(address, 0o777)
    told = Notified(sock, address)
    try:
        yield told
    finally:
        told.close()
