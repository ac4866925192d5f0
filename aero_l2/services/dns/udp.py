"""DNS over UDP for one tunnel."""

import asyncio
import socket
from functools import partial
from typing import Any, Final

from aero_l2.services.dns.message import MAX_QUERY_BYTES
from aero_l2.services.dns.responder import Responder

# A flood takes its turn with every other tunnel on the loop: the more a turn holds, the longer they wait.
# With two, a turn takes about 1 ms of processor time under a flood of new names, with four 1.7 ms.
_DATAGRAMS_PER_WAKEUP: Final = 2


class UdpListener:
    """Takes queries from a bound socket that somebody else owns. `errors`: what the kernel refused."""

    def __init__(self, fd: int, responder: Responder) -> None:
        """`fd`: non-blocking; borrowed between `start` and `stop`."""
        self._fd = fd
        self._responder = responder
        self._socket: socket.socket | None = None
        self.errors = 0

    def start(self) -> None:
        """Begin to answer, on the running loop. OSError if it is not an open socket."""
        self._socket = socket.socket(fileno=self._fd)
        asyncio.get_running_loop().add_reader(self._fd, self._on_readable)

    def stop(self) -> None:
        """Take no more and answer no more; idempotent."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
            self._socket.detach()
            self._socket = None

    def _on_readable(self) -> None:
        for _ in range(_DATAGRAMS_PER_WAKEUP):
            if self._socket is None:
                return
            try:
                # One byte more than a query may have: a longer one is seen as such.
                wire, peer = self._socket.recvfrom(MAX_QUERY_BYTES + 1)
            except BlockingIOError:
                return
            except OSError:
                self.errors += 1
                return
            self._responder.handle(wire, partial(self._send, peer), tcp=False)

    def _send(self, peer: Any, wire: bytes | None) -> None:
        if wire is None or self._socket is None:
            return
        try:
            self._socket.sendto(wire, peer)
        except OSError:
            self.errors += 1
