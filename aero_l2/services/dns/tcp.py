"""DNS over TCP for one tunnel: a bounded number of connections (RFC 7766, RFC 9210)."""

import asyncio
import socket
from typing import Final

from aero_l2.quota.waiting import Waiting
from aero_l2.services.dns.connection import Connection, reset_on_close
from aero_l2.services.dns.responder import Responder
from aero_l2.tasks import spawn

IDLE_SECONDS: Final = 10.0
MAX_CONNECTIONS: Final = 16
_KERNEL_SEND_BUFFER_BYTES: Final = 64 * 1024
# How long the kernel keeps at it when a guest acknowledges nothing, in ms: also after we have closed, while
# the socket holds the tunnel's namespace.
_UNACKNOWLEDGED_MS: Final = 5000
_ACCEPTS_PER_WAKEUP: Final = 4
_RETRY_ACCEPT_SECONDS: Final = 0.5


class TcpListener:
    """Accepts a tunnel's DNS connections on a listening socket that somebody else owns.

    Beyond `MAX_CONNECTIONS` a connection is reset at once. `errors` counts failed accepts.
    """

    def __init__(
        self,
        fd: int,
        responder: Responder,
        idle_s: float = IDLE_SECONDS,
        pool: "Waiting[Connection] | None" = None,
    ) -> None:
        """`fd`: non-blocking, listening; borrowed between `start` and `stop`.

        `pool`: bounds the connections of all tunnels: one too many ends the oldest of who has the most.
        """
        self._fd = fd
        self._responder = responder
        self._idle = idle_s
        self._pool = Waiting(MAX_CONNECTIONS) if pool is None else pool
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket: socket.socket | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.errors = 0

    @property
    def connections(self) -> int:
        """Connections that are open or being opened."""
        return len(self._connections)

    def start(self) -> None:
        """Begin to accept."""
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(fileno=self._fd)
        self._loop.add_reader(self._fd, self._on_acceptable)

    def stop(self) -> None:
        """Accept no more and end every connection; `wait_stopped` awaits their end."""
        if self._socket is None or self._loop is None:
            return
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._fd)
        self._socket.detach()
        self._socket = None
        for connection in self._connections:
            connection.abort()

    async def wait_stopped(self) -> None:
        """Wait until no connection is left."""
        await self._empty.wait()

    def _on_acceptable(self) -> None:
        for _ in range(_ACCEPTS_PER_WAKEUP):
            if self._socket is None:
                return
            try:
                accepted, _ = self._socket.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            except OSError:
                self._pause()
                return
            self._admit(accepted)

    def _admit(self, accepted: socket.socket) -> None:
        if self.connections >= MAX_CONNECTIONS:
            reset_on_close(accepted)
            accepted.close()
            return
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_SEND_BUFFER_BYTES)
        connection = Connection(accepted, self._responder, self._idle, self._forget)
        self._connections.add(connection)
        self._empty.clear()
        too_many = self._pool.add(connection, str(id(self)))
        if too_many is not None:
            too_many.abort()
        spawn(self._open(connection, accepted), name="dns connection")

    async def _open(self, connection: Connection, accepted: socket.socket) -> None:
        """Hand the socket to a transport, which owns it from then on; over within one turn of the loop."""
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(lambda: connection, accepted)
        except OSError:
            accepted.close()
            self._forget(connection)
            return
        if self._socket is None:
            connection.abort()

    def _forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._pool.discard(connection)
        if not self._connections:
            self._empty.set()

    def _pause(self) -> None:
        """Out of descriptors, most likely: a listening socket stays readable, so look again later."""
        self.errors += 1
        if self._loop is not None:
            self._loop.remove_reader(self._fd)
            self._retry = self._loop.call_later(_RETRY_ACCEPT_SECONDS, self._resume)

    def _resume(self) -> None:
        if self._loop is not None and self._socket is not None:
            self._loop.add_reader(self._fd, self._on_acceptable)
