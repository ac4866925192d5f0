"""websockets' client connection, with what a server can make it keep bounded: the tunnel's transport.

Messages are handed over as they are read and written a batch at a time, by callbacks; docs/adr/0014 says why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final, Protocol

from websockets.asyncio.client import ClientConnection
from websockets.frames import BINARY, CONT, TEXT, Frame
from websockets.protocol import CLOSED, CLOSING, OPEN, Event

_HTTP: Final = b"HTTP/1."
_NO_STATUS_LINE: Final = b"?\r\n"
"""For websockets' parser, which would wait for the end of a line that may never come."""
CLOSE_TIMEOUT_S: Final = 2.0
"""For everything at the end: what is queued, both close frames, the end of the TCP connection."""
MAX_UNREAD_REPLIES: Final = 256 * 1024
"""Bytes of WebSocket pongs that wait for a server that goes on asking for them."""


class Receiver(Protocol):
    """What a connection tells the tunnel, from the event loop; `on_end` once, and nothing after it."""

    def on_open(self, connection: Connection) -> None:
        """There is a transport; the handshake begins."""

    def on_message(self, message: bytes) -> None:
        """A binary message."""

    def on_writable(self) -> None:
        """There is room again."""

    def on_end(self, code: int | None, text: str) -> None:
        """The close frame's code and reason; without one, None and what happened instead."""


class Connection(ClientConnection):
    """One WebSocket. websockets does the handshake, the parsing, and the closing handshake.

    Its own receiving queue, keepalive and `send` stay unused: they would cost a task switch a message, take
    no account of a program that pauses, and wait without limit for a server that does not read.
    """

    def __init__(self, receiver: Receiver, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._receiver = receiver
        self._begin = b""
        self._fragments: bytearray | None = None
        self._unread_replies = 0
        self._is_over = False
        self._is_lost = False
        self._is_reading = True
        self._last_resort: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the transport is there."""
        super().connection_made(transport)
        self._receiver.on_open(self)

    # -- in

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes of the server."""
        before = self.transport.get_write_buffer_size()
        if len(self._begin) < len(_HTTP):
            self._begin += data[: len(_HTTP) - len(self._begin)]
            if not _HTTP.startswith(self._begin):
                data = _NO_STATUS_LINE
        super().data_received(data)
        if self.protocol.handshake_exc is not None:
            self.transport.abort()  # websockets would wait for the server to end the connection
            return
        if self.protocol.state is CLOSING or self.protocol.state is CLOSED:
            self._on_closing()
        elif self.paused:
            self._unread_replies += self.transport.get_write_buffer_size() - before
            if self._unread_replies > MAX_UNREAD_REPLIES:
                self._over(None, "it sends pings and does not read the answers")
                self.transport.abort()

    def process_event(self, event: Event) -> None:
        """websockets: the answer to the handshake, or a frame."""
        if self.response is None or not isinstance(event, Frame):
            super().process_event(event)
        elif self._is_over:
            pass
        elif event.opcode is BINARY and event.fin:
            self._receiver.on_message(bytes(event.data))
        elif event.opcode is BINARY or event.opcode is TEXT or event.opcode is CONT:
            self._assemble(event)

    def _assemble(self, part: Frame) -> None:
        """Put fragments together, which websockets holds to the limit of a message; leave texts out."""
        if part.opcode is BINARY:
            self._fragments = bytearray(part.data)
        elif part.opcode is CONT and self._fragments is not None:
            self._fragments += part.data
            if part.fin:
                message, self._fragments = bytes(self._fragments), None
                self._receiver.on_message(message)

    def set_reading(self, wanted: bool) -> None:
        """Pause and resume: what is not read stays with the server."""
        if wanted != self._is_reading and not self.transport.is_closing():
            self._is_reading = wanted
            (self.transport.resume_reading if wanted else self.transport.pause_reading)()

    # -- out

    @property
    def is_writable(self) -> bool:
        """Whether `write` has somewhere to put messages."""
        return not self.paused and self.protocol.state is OPEN and not self.transport.is_closing()

    def write(self, messages: Iterable[bytes]) -> None:
        """Write binary messages, a batch at once; only while `is_writable`."""
        for message in messages:
            self.protocol.send_binary(message)
        self.transport.write(b"".join(self.protocol.data_to_send()))

    def resume_writing(self) -> None:
        """asyncio: the transport's buffer has drained."""
        super().resume_writing()
        self._unread_replies = 0
        self._receiver.on_writable()

    # -- the end

    def give_up(self, code: int, why: str) -> None:
        """End it from this side, telling the server ``code``; ``why`` is what `on_end` gets."""
        self._over(None, why)
        if self.protocol.state is OPEN:
            self.protocol.send_close(code)
            self.send_data()
        self._abort_soon()

    def drop(self, why: str) -> None:
        """End it from this side without a close frame: the server is to keep what it has for us."""
        self._over(None, why)
        self.transport.abort()

    async def finish(self, deadline: float) -> None:
        """Close by the loop's ``deadline``, with both close frames if the server takes part."""
        try:
            if not self._is_lost:
                async with asyncio.timeout_at(deadline):
                    await self.close()
        except TimeoutError:
            pass  # websockets waits for as long as the server reads nothing
        finally:
            self._over(None, "it is closed here")
            self.transport.abort()
        await self.wait_closed()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the transport is gone."""
        super().connection_lost(exc)
        if self._last_resort is not None:
            self._last_resort.cancel()
        reason = exc.strerror if isinstance(exc, OSError) else None
        self._over(None, reason or "it ended without a close frame")

    def _on_closing(self) -> None:
        """The server's close frame is there, or websockets refuses what the server sends."""
        closed, fault = self.protocol.close_rcvd, self.protocol.parser_exc
        if closed is not None and fault is None:
            self._over(closed.code, closed.reason)
        else:
            self._over(None, f"the server breaks the WebSocket protocol: {fault}")
        self._abort_soon()

    def _over(self, code: int | None, text: str) -> None:
        if not self._is_over:
            self._is_over = True
            self._is_lost = code is None
            self._fragments = None
            self._receiver.on_end(code, text)

    def _abort_soon(self) -> None:
        """It is for the server to end the TCP connection (RFC 6455 §7.1.1), but it may not."""
        if self._last_resort is None:
            self._last_resort = self.loop.call_later(CLOSE_TIMEOUT_S, self.transport.abort)
        self.set_reading(True)
