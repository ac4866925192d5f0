"""DNS over TCP for one tunnel: pipelined, and bounded in every direction (RFC 7766, RFC 9210)."""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final, cast

from aero_l2.services.dns.message import MAX_QUERY_BYTES
from aero_l2.services.dns.responder import Responder
from aero_l2.tasks import spawn

IDLE_SECONDS: Final = 10.0
MAX_CONNECTIONS: Final = 16
# Queries of one connection that wait for an answer; the kernel holds back what is sent beyond.
MAX_PIPELINED: Final = 16

# A tunnel has up to MAX_CONNECTIONS turns in each round of the loop.
_QUERIES_PER_TURN: Final = 1
_READ_BUFFER_BYTES: Final = 4096
_MAX_UNSENT_BYTES: Final = 128 * 1024
_KERNEL_SEND_BUFFER_BYTES: Final = 64 * 1024
_PREFIX_BYTES: Final = 2
# How long the kernel keeps at it when a guest acknowledges nothing, in ms: also after we have closed.
_UNACKNOWLEDGED_MS: Final = 5000
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_ACCEPTS_PER_WAKEUP: Final = 4
_RETRY_ACCEPT_SECONDS: Final = 0.5


class Connection(asyncio.BufferedProtocol):
    """One connection. Reads into a fixed buffer; ends when idle, broken, or too slow to take answers."""

    def __init__(
        self,
        accepted: socket.socket,
        responder: Responder,
        idle_s: float,
        on_closed: Callable[["Connection"], None],
    ) -> None:
        """`accepted` is the transport's socket; `on_closed` is called once, when the transport is gone."""
        self._socket = accepted
        self._responder = responder
        self._idle = idle_s
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray(_READ_BUFFER_BYTES)
        self._filled = 0
        self._waiting = 0
        self._at_end = False
        self._answered = False
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._turn: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the idle clock."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._touch()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop clocks and turns."""
        self._transport = None
        for handle in (self._timer, self._turn):
            if handle is not None:
                handle.cancel()
        self._on_closed(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Offer the free part of the buffer; a complete query always fits."""
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Take in what was read."""
        self._filled += nbytes
        self._read_on()

    def eof_received(self) -> bool:
        """Keep our direction open until everything asked is answered (half-close)."""
        self._at_end = True
        if self._waiting > 0 or self._turn is not None:
            return True
        self._leave_nothing_behind()
        return False

    def abort(self) -> None:
        """End now with a reset, unsent answers are lost."""
        if self._transport is not None:
            _reset_on_close(self._socket)
            self._transport.abort()

    def _leave_nothing_behind(self) -> None:
        """Before a close: where no answer can be lost, no socket need wait for the guest to agree."""
        if not self._answered:
            _reset_on_close(self._socket)

    def _read_on(self) -> None:
        """Handle as many queries as a turn holds, then let the loop's other work have its own."""
        self._turn = None
        if self._transport is None:
            return
        for _ in range(min(_QUERIES_PER_TURN, MAX_PIPELINED - self._waiting)):
            query = self._next_query()
            if query is None:
                break
            self._touch()
            self._waiting += 1
            self._responder.handle(query, self._deliver, tcp=True)
        self._flow()

    def _next_query(self) -> bytes | None:
        if self._transport is None or self._filled < _PREFIX_BYTES:
            return None
        length = int.from_bytes(self._buffer[:_PREFIX_BYTES], "big")
        if length > MAX_QUERY_BYTES:
            self.abort()
            return None
        end = _PREFIX_BYTES + length
        if self._filled < end:
            return None
        query = bytes(self._buffer[_PREFIX_BYTES:end])
        self._buffer[: self._filled - end] = self._buffer[end : self._filled]
        self._filled -= end
        return query

    def _flow(self) -> None:
        """Decide whether to read: not while a whole query waits here, or as many wait as may."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        full = self._waiting >= MAX_PIPELINED
        if not full and self._has_query() and self._turn is None:
            self._turn = self._loop.call_soon(self._read_on)
        if self._at_end:
            if self._waiting == 0 and self._turn is None:
                self._leave_nothing_behind()
                transport.close()
        elif full or self._turn is not None:
            transport.pause_reading()
        else:
            transport.resume_reading()

    def _has_query(self) -> bool:
        length = int.from_bytes(self._buffer[:_PREFIX_BYTES], "big")
        return self._filled >= _PREFIX_BYTES and (
            length > MAX_QUERY_BYTES or self._filled >= _PREFIX_BYTES + length
        )

    def _deliver(self, wire: bytes | None) -> None:
        self._waiting -= 1
        if self._transport is None or self._transport.is_closing():
            return
        if wire is not None:
            self._answered = True
            self._transport.write(len(wire).to_bytes(_PREFIX_BYTES, "big") + wire)
            self._touch()
        if self._transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            self.abort()
        else:
            self._flow()

    def _touch(self) -> None:
        self._deadline = self._loop.time() + self._idle

    def _watch(self) -> None:
        """One timer for the connection's life: it looks whether the deadline has moved on."""
        left = self._idle if self._waiting else self._deadline - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._watch)
        else:
            self.abort()


def _reset_on_close(sock: socket.socket) -> None:
    """Have the kernel forget the connection when it is closed (socket(7), SO_LINGER).

    After an orderly close it is kept for minutes if the guest never acknowledges, and nobody counts it.
    """
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


class TcpListener:
    """Accepts a tunnel's DNS connections on a listening socket that somebody else owns.

    Beyond `MAX_CONNECTIONS` a connection is reset at once. `errors` counts failed accepts.
    """

    def __init__(self, fd: int, responder: Responder, idle_s: float = IDLE_SECONDS) -> None:
        """`fd`: non-blocking, listening; borrowed between `start` and `stop`."""
        self._fd = fd
        self._responder = responder
        self._idle = idle_s
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
            _reset_on_close(accepted)
            accepted.close()
            return
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_SEND_BUFFER_BYTES)
        connection = Connection(accepted, self._responder, self._idle, self._forget)
        self._connections.add(connection)
        self._empty.clear()
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
