"""The working part of a tunnel: frames and control messages between the program and the WebSocket.

Callbacks of one event loop on two bounded queues; it has no tasks.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from aero_l2.client.connection import CLOSE_TIMEOUT_S, Connection
from aero_l2.client.errors import ClosedHere, TunnelClosed, TunnelLost
from aero_l2.client.queue import Closable
from aero_l2.errors import MalformedMessage
from aero_l2.wire.tunnel import (
    DEFAULT_MAX_CONTROL_PAYLOAD,
    FRAME_HEADER,
    HEADER_BYTES,
    RESUMED,
    SUBPROTOCOL,
    ErrorMessage,
    Limits,
    MessageType,
    decode,
    decode_error,
    encode,
)

MAX_FRAME: Final = 65_535
"""Largest frame that is taken from a server, whatever its own limit is."""

_LIMITS: Final = Limits(MAX_FRAME, MAX_FRAME)
_FRAME_START: Final = FRAME_HEADER[:3]  # the fourth byte, the flags, is ignored
_BATCH: Final = 64
_CONTROLS: Final = 32
"""Control messages that the queue takes when it is full of frames; more PINGs of a server go unanswered."""
_SILENT: Final = "it does not answer any more"
_POLICY_VIOLATION: Final = 1008  # RFC 6455 §7.4.1


_SECRET: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")  # RFC 9110 §5.6.2


@dataclass(slots=True)
class Stats:
    """What a tunnel has carried: Ethernet frames and their bytes, as the network card sees them.

    frames_dropped: what `Tunnel.offer_frame` had no room for, and what is over `Options.max_frame_bytes`.
    rtt_s: of the last PING that was answered, keepalive's included.
    """

    frames_sent: int = 0
    bytes_sent: int = 0
    frames_received: int = 0
    bytes_received: int = 0
    frames_dropped: int = 0
    rtt_s: float | None = None


class _Ping(NamedTuple):
    sent_at: float
    answered: asyncio.Future[float | None] | None


class Link:
    """One tunnel from its handshake on.

    redact: takes secrets out of what a server says. ended: done, with the reason, when the tunnel is over.
    resume_secret: by which it can be had back if it is lost, None where the server gives none. is_resumed:
    whether it is a former one.
    """

    def __init__(self, queued_frames: int, keepalive_s: float, redact: Callable[[str], str]) -> None:
        self.stats = Stats()
        self.incoming = Closable(queued_frames)
        self.outgoing = Closable(queued_frames)
        self.ended: asyncio.Future[TunnelClosed] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._redact = redact
        self._keepalive_s = keepalive_s
        self._connection: Connection
        self._error_message: ErrorMessage | None = None
        self._flush_is_due = False
        self._pings: dict[bytes, _Ping] = {}
        self._numbers = itertools.count(1)
        self._timer: asyncio.TimerHandle | None = None
        self._keepalive_ping: bytes | None = None
        self._has_heard = False
        self._told: asyncio.Future[None] = self._loop.create_future()
        self.resume_secret: str | None = None
        self.is_resumed = False

    def on_open(self, connection: Connection) -> None:
        """There is a transport."""
        self._connection = connection

    # -- in

    def on_message(self, message: bytes) -> None:
        """A message of the server."""
        if self.ended.done():
            return
        self._has_heard = True
        if message[:3] == _FRAME_START and len(message) >= HEADER_BYTES:
            self.stats.frames_received += 1
            self.stats.bytes_received += len(message) - HEADER_BYTES
            self.incoming.push(message[HEADER_BYTES:])
            if self.incoming.is_full:
                self._connection.set_reading(False)
            return
        try:
            kind, _, payload = decode(message, _LIMITS)
        except MalformedMessage as fault:
            why = f"the server sends what is no message of {SUBPROTOCOL}: {fault}"
            self._connection.give_up(_POLICY_VIOLATION, why)
            return
        if kind == MessageType.PING and len(payload) <= DEFAULT_MAX_CONTROL_PAYLOAD:
            self._offer_control(MessageType.PONG, payload)
        elif kind == MessageType.PONG:
            self._on_pong(payload)
        elif kind == MessageType.ERROR:
            error = decode_error(payload)
            self._error_message = ErrorMessage(error.code, self._redact(error.text))
        elif kind == MessageType.RESUME_SECRET:
            self.resume_secret = secret_of(payload)
        elif kind == MessageType.RESUME_STATE:
            self._learn(payload[:1] == RESUMED)

    async def take(self, most: int | None = None) -> list[bytes]:
        """Frames of the server, one at least."""
        taken = await self.incoming.take(most)
        if not (self.incoming.is_full or self.ended.done()):
            self._has_heard = True  # it was not listened to until now
            self._connection.set_reading(True)
        return taken

    # -- out

    def offer(self, message: bytes) -> bool:
        """Queue a message if there is room. Raises TunnelClosed."""
        if not self.outgoing.offer(message):
            return False
        self._flush_soon()
        return True

    async def put(self, message: bytes) -> None:
        """Queue a message when there is room. Raises TunnelClosed."""
        await self.outgoing.put(message)
        self._flush_soon()

    def on_writable(self) -> None:
        """The connection has room again."""
        self._flush()

    def _offer_control(self, kind: MessageType, payload: bytes) -> None:
        if self.outgoing.error is None and self.outgoing.offer(encode(kind, payload), beyond=_CONTROLS):
            self._flush_soon()

    def _flush_soon(self) -> None:
        """Write in this turn of the loop's next, together with what else comes until then."""
        if not self._flush_is_due and self._connection.is_writable:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        while self.outgoing and self._connection.is_writable:
            self._connection.write(self.outgoing.take_now(_BATCH))

    # -- resuming

    async def learn_whether_resumed(self, timeout_s: float) -> None:
        """Wait until the server has said it. One that cannot resume says nothing: it answers a PING first."""
        answered: asyncio.Future[float | None] = self._loop.create_future()
        payload, message = self.ping(answered)
        try:
            if self.outgoing.error is None:
                self.offer(message)
                waited: list[asyncio.Future[Any]] = [self._told, answered, self.ended]
                await asyncio.wait(waited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.forget(payload)

    def _learn(self, is_resumed: bool) -> None:
        if not self._told.done():
            self.is_resumed = is_resumed
            self._told.set_result(None)

    # -- PING

    def ping(self, answered: asyncio.Future[float | None] | None) -> tuple[bytes, bytes]:
        """A new PING, which is remembered until `forget`: its payload and the message.

        ``answered`` will be the seconds it took, None where the tunnel ends before.
        """
        payload = next(self._numbers).to_bytes(8, "big")
        self._pings[payload] = _Ping(self._loop.time(), answered)
        return payload, encode(MessageType.PING, payload)

    def forget(self, payload: bytes) -> None:
        """Nobody waits for the answer any more."""
        self._pings.pop(payload, None)

    def _on_pong(self, payload: bytes) -> None:
        if (ping := self._pings.pop(payload, None)) is None:
            return
        self.stats.rtt_s = self._loop.time() - ping.sent_at
        if ping.answered is not None and not ping.answered.done():
            ping.answered.set_result(self.stats.rtt_s)

    def start_keepalive(self) -> None:
        """Look after the server from now on."""
        if self._keepalive_s > 0 and not self.ended.done():
            self._timer = self._loop.call_later(self._keepalive_s, self._keep_alive)

    def _keep_alive(self) -> None:
        """A PING each time; whoever has said nothing since the last one is gone.

        While the program takes no frames, nothing is read, so nothing can be said.
        """
        if self._keepalive_ping is not None:
            self.forget(self._keepalive_ping)
            if not (self._has_heard or self.incoming.is_full):
                self._give_up_silent()
                return
        self._has_heard = False
        self._keepalive_ping, message = self.ping(None)
        if self.outgoing.offer(message, beyond=_CONTROLS):
            self._flush_soon()
        self._timer = self._loop.call_later(self._keepalive_s, self._keep_alive)

    def _give_up_silent(self) -> None:
        """A close frame would end what the server may keep for us."""
        if self.resume_secret is None:
            self._connection.give_up(_POLICY_VIOLATION, _SILENT)
        else:
            self._connection.drop(_SILENT)

    # -- the end

    def on_end(self, code: int | None, text: str) -> None:
        """The connection is over."""
        text = self._redact(text)
        error = self._error_message
        self._end(TunnelLost(text, error) if code is None else TunnelClosed(code, text, error))
        self.outgoing.close(self.ended.result(), drop=True)

    async def close(self) -> None:
        """Write what is queued, and close; within `CLOSE_TIMEOUT_S` in any case."""
        deadline = self._loop.time() + CLOSE_TIMEOUT_S
        self._end(ClosedHere())
        try:
            self._connection.set_reading(True)  # a close frame may be behind what nobody has read
            async with asyncio.timeout_at(deadline):
                await self.outgoing.wait_empty()
        except TimeoutError:
            pass  # a server that reads nothing
        except asyncio.CancelledError:
            deadline = self._loop.time()
            raise
        finally:
            await self._connection.finish(deadline)

    def _end(self, why: TunnelClosed) -> None:
        """For the program it is over; what it has sent may still be written."""
        if self.ended.done():
            return
        self.ended.set_result(why)
        self.incoming.close(why, drop=isinstance(why, ClosedHere))
        self.outgoing.close(why)
        if self._timer is not None:
            self._timer.cancel()
        for ping in self._pings.values():
            if ping.answered is not None and not ping.answered.done():
                ping.answered.set_result(None)


def secret_of(payload: bytes) -> str | None:
    """The secret of a RESUME_SECRET, if it can be sent back as a part of a subprotocol."""
    return payload.decode() if _SECRET.fullmatch(payload) else None
