"""One connection of a guest to its DNS over TCP: pipelined, and bounded in every direction (RFC 7766)."""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final, cast

from aero_l2.services.dns.message import MAX_QUERY_BYTES
from aero_l2.services.dns.responder import Responder

# Queries of one connection that wait for an answer; the kernel holds back what is sent beyond.
MAX_PIPELINED: Final = 16

# A tunnel has up to `aero_l2.services.dns.tcp.MAX_CONNECTIONS` turns in each round of the loop.
_QUERIES_PER_TURN: Final = 1
_READ_BUFFER_BYTES: Final = 4096
_MAX_UNSENT_BYTES: Final = 128 * 1024
_PREFIX_BYTES: Final = 2
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


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
        self._is_doomed = False
        self._answered = False
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._turn: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the idle clock."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._touch()
        self._watch()
        if self._is_doomed:
            self.abort()

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
        """End now with a reset, unsent answers are lost; one that is not open yet ends as soon as it is."""
        self._is_doomed = True
        if self._transport is not None:
            reset_on_close(self._socket)
            self._transport.abort()

    def _leave_nothing_behind(self) -> None:
        """Before a close: where no answer can be lost, no socket need wait for the guest to agree."""
        if not self._answered:
            reset_on_close(self._socket)

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


def reset_on_close(sock: socket.socket) -> None:
    """Have the kernel forget the connection when it is closed (socket(7), SO_LINGER).

    After an orderly close it is kept for minutes if the guest never acknowledges, and nobody counts it.
    """
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
