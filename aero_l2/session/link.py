"""The WebSocket side of a tunnel: an asyncio.Protocol between a transport and the tunnel.

It takes over the transport after the 101. Memory is bounded on the way out by pausing whoever produces frames
and, where replies pile up that the client itself provokes, by not reading from it; on the way in a loop turn
takes at most `MAX_FRAMES_PER_BATCH` WebSocket frames. What comes behind the WebSocket's end is discarded,
at most `MAX_DISCARDED` bytes and the read that exceeds them.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import sys
import termios
from collections.abc import Sequence
from typing import Final, Protocol, cast

from aero_l2.session.stall import StallClock
from aero_l2.wire.receive import Aside, Batch, Receiver

WRITE_HIGH_WATER: Final = 128 * 1024
WRITE_LOW_WATER: Final = 32 * 1024
MAX_REPLIES_WHILE_PAUSED: Final = 64 * 1024
MAX_DISCARDED: Final = 1024 * 1024


class LinkOwner(Protocol):
    """What a link tells its tunnel; always from the event loop, never after `gone`."""

    def on_messages(self, messages: list[bytes], asides: Sequence[Aside]) -> None:
        """Binary messages of one read, in order, and what else came among them."""

    def on_paused(self) -> None:
        """The transport's buffer is full: stop producing."""

    def on_resumed(self) -> None:
        """There is room again."""

    def on_stalled(self) -> None:
        """The client takes nothing."""

    def on_websocket_end(self) -> None:
        """The close handshake was begun by the peer, or the library failed the connection."""

    def on_gone(self) -> None:
        """The connection is lost."""


class Link(asyncio.Protocol):
    """One WebSocket connection after its handshake; see the module for what it bounds.

    stall_timeout_s: 0 = a client may take nothing for ever. heard: set whenever bytes arrive, for whoever
    resets it.
    """

    def __init__(self, receiver: Receiver, owner: LinkOwner, *, stall_timeout_s: float) -> None:
        self._receiver = receiver
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None
        self._paused = False
        self._replies_while_paused = 0
        self._backlog = False
        self._continuing = False
        self._holding_replies = False
        self._written = 0
        self._clock = StallClock(stall_timeout_s)
        self._stall_timer: asyncio.TimerHandle | None = None
        self._ended = False
        self._close_sent = False
        self._discarded = 0
        self.heard = False
        self._gone: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over a transport whose handshake is done."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER, low=WRITE_LOW_WATER)
        self._socket = transport.get_extra_info("socket")
        self._update_reading()

    # -- in

    def data_received(self, data: bytes) -> None:
        """Bytes of the peer."""
        self.heard = True
        if self._ended:
            self._discard(data)
            return
        batch = self._receiver.receive(data)
        if batch.messages or batch.asides:
            self._owner.on_messages(batch.messages, batch.asides)
        if batch.outgoing or batch.ended or batch.backlog or self._backlog:
            self._after(batch)

    def eof_received(self) -> bool:
        """The peer ends its side; so do we, after what is buffered."""
        return False

    def _after(self, batch: Batch) -> None:
        """Everything but messages, in the order the peer should see it; nothing behind our close frame."""
        if batch.outgoing and not self._close_sent:
            self.reply(batch.outgoing)
        if batch.ended and not self._ended:
            self._ended = True
            self._owner.on_websocket_end()
        self._backlog = batch.backlog and not self._ended
        self._update_reading()

    def _discard(self, data: bytes) -> None:
        """Let bytes behind the end go; who sends too many is not read, and our close frame stays intact."""
        self._discarded += len(data)
        self._update_reading()

    def _continue(self) -> None:
        self._continuing = False
        if not (self._gone.done() or self._holding_replies):
            self.data_received(b"")

    def _update_reading(self) -> None:
        """Take more unless the client leaves its replies lying; what is buffered comes before new bytes."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._backlog and not (self._holding_replies or self._continuing):
            self._continuing = True
            self._loop.call_soon(self._continue)
        should_read = not (self._backlog or self._holding_replies or self._discarded > MAX_DISCARDED)
        if should_read != transport.is_reading():
            (transport.resume_reading if should_read else transport.pause_reading)()

    @property
    def is_listening(self) -> bool:
        """Whether what arrives is read."""
        return self._transport is not None and self._transport.is_reading()

    # -- out

    def write(self, data: bytes) -> None:
        """Write bytes of whole WebSocket frames; nothing happens once the connection is going away."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._written += len(data)
        transport.write(data)
        if self._stall_timer is None and self._clock.timeout_s > 0:
            self._watch_for_stall()

    def reply(self, data: bytes) -> None:
        """Write what the client itself provoked; a client that does not read it is not read either."""
        self.write(data)
        if self._paused:
            self._replies_while_paused += len(data)
            if self._replies_while_paused > MAX_REPLIES_WHILE_PAUSED and not self._holding_replies:
                self._holding_replies = True
                self._update_reading()

    def ping(self) -> None:
        """Send a WebSocket ping."""
        frame = self._receiver.ping()
        if frame:
            self.write_aside(frame)

    def write_aside(self, data: bytes) -> None:
        """Write a question: no data that the client has to take, so no stall is looked for."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            self._written += len(data)
            transport.write(data)

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._paused = True
        if not self._gone.done():
            self._owner.on_paused()

    def resume_writing(self) -> None:
        """The transport's buffer has drained."""
        self._paused = False
        self._replies_while_paused = 0
        if self._holding_replies:
            self._holding_replies = False
            self._update_reading()
        if not self._gone.done():
            self._owner.on_resumed()

    def outstanding(self) -> int:
        """Bytes written that the peer's TCP has not acknowledged (tcp(7), SIOCOUTQ)."""
        transport, sock = self._transport, self._socket
        if transport is None or sock is None or transport.is_closing():
            return 0
        queued = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        return transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)

    def buffered(self) -> int:
        """Bytes written that this process still holds."""
        transport = self._transport
        return transport.get_write_buffer_size() if transport is not None else 0

    def _watch_for_stall(self) -> None:
        now = self._loop.time()
        self._clock.start(now, self._written, self.outstanding())
        self._stall_timer = self._loop.call_later(self._clock.next_look_s(now), self._look_for_stall)

    def _look_for_stall(self) -> None:
        self._stall_timer = None
        outstanding = self.outstanding()
        if outstanding == 0 or self._gone.done():
            return
        now = self._loop.time()
        if self._clock.is_stalled(now, self._written, outstanding):
            self._owner.on_stalled()
            return
        self._stall_timer = self._loop.call_later(self._clock.next_look_s(now), self._look_for_stall)

    # -- end

    @property
    def peer_closed(self) -> bool:
        """Whether the peer's close frame has arrived."""
        return self._receiver.peer_closed

    @property
    def failure(self) -> tuple[int, str] | None:
        """Close code and reason with which the library failed the connection."""
        return self._receiver.failure

    def send_close(self, code: int, reason: str) -> None:
        """Start the closing handshake (RFC 6455 §7.1.2), unless it has begun."""
        frame = self._receiver.close(code, reason)
        if frame:
            self._close_sent = True
            self.write(frame)

    async def finish(self) -> None:
        """Wait for the peer's close frame, or for `abort`; returns when all is gone.

        When the library failed the connection, our side is shut down first and what still arrives is
        discarded: closing with unread bytes would reset the connection and could cost the peer our frame.
        A peer that goes on sending has had the whole wait to read it.
        """
        self._stop_stall_timer()
        try:
            self._release_reading()
            if self._ended:
                self._shut_down_our_side()
            await asyncio.wait((self._gone,))
        finally:
            self.abort()

    def finish_now(self) -> None:
        """The closing handshake is complete while `finish` waits."""
        self._shut_down_our_side()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._stop_stall_timer()
        if self._transport is not None:
            self._transport.abort()

    def let_go(self) -> None:
        """Drop the connection, and tell the owner nothing any more: it has another link."""
        self._ended = True
        if not self._gone.done():
            self._gone.set_result(None)
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed, by us or by the peer."""
        self._stop_stall_timer()
        self._ended = True
        self._receiver.release()
        if not self._gone.done():
            self._gone.set_result(None)
            self._owner.on_gone()

    def _shut_down_our_side(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self.peer_closed:
            transport.close()
        elif transport.can_write_eof():
            transport.write_eof()

    def _release_reading(self) -> None:
        self._holding_replies = False
        self._update_reading()

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
