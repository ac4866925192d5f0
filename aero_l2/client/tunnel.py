"""An open tunnel, on websockets' asyncio client: frames both ways, PINGs, and how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from aero_l2.client.address import Target
from aero_l2.client.errors import ClientError, TunnelClosed, TunnelLost
from aero_l2.client.opening import CLOSE_TIMEOUT_S, MAX_FRAME, Options, open_connection
from aero_l2.client.queue import Closable
from aero_l2.errors import MalformedMessage
from aero_l2.tasks import spawn
from aero_l2.wire.tunnel import (
    DEFAULT_MAX_CONTROL_PAYLOAD,
    FRAME_HEADER,
    HEADER_BYTES,
    SUBPROTOCOL,
    ErrorMessage,
    Limits,
    MessageType,
    decode,
    decode_error,
    encode,
)

_LIMITS: Final = Limits(MAX_FRAME, MAX_FRAME)


@dataclass(slots=True)
class Stats:
    """What a tunnel has carried: Ethernet frames and their bytes, as the network card sees them.

    frames_dropped: frames that `Tunnel.offer_frame` had no room for. rtt_s: of the last PING.
    """

    frames_sent: int = 0
    bytes_sent: int = 0
    frames_received: int = 0
    bytes_received: int = 0
    frames_dropped: int = 0
    rtt_s: float | None = None


@asynccontextmanager
async def connect(url: str | Target, options: Options | None = None) -> AsyncIterator[Tunnel]:
    """Open a tunnel, and close it on the way out.

    Raises:
        ClientError: see errors.py for the tree; the tunnel's own end is raised by its methods.
    """
    options = options or Options()
    target = Target.of(url, options.credential, options.origin) if isinstance(url, str) else url
    async with contextlib.AsyncExitStack() as stack:
        websocket = await open_connection(target, options)
        stack.push_async_callback(websocket.close)
        tunnel = Tunnel(websocket, target, options)
        stack.push_async_callback(tunnel._stop)
        yield tunnel


class Tunnel:
    """An open tunnel; made by `connect`.

    Frames wait in two bounded queues. A program that does not receive makes the server keep frames back, and
    what does not fit its queue there is lost, as on any Ethernet.
    """

    def __init__(self, websocket: ClientConnection, target: Target, options: Options) -> None:
        self.target = target
        self.stats = Stats()
        self._websocket = websocket
        self._incoming = Closable(options.queued_frames)
        self._outgoing = Closable(options.queued_frames)
        self._pings: dict[bytes, asyncio.Future[float]] = {}
        self._numbers = itertools.count(1)
        self._error_message: ErrorMessage | None = None
        self._tasks = [spawn(self._read(), name="tunnel reader"), spawn(self._write(), name="tunnel writer")]

    @property
    def ended(self) -> Exception | None:
        """Why the tunnel has ended, None while it is open."""
        return self._incoming.error

    async def send_frame(self, frame: bytes) -> None:
        """Send an Ethernet frame, waiting for room. Raises TunnelClosed."""
        await self._outgoing.put(FRAME_HEADER + frame)
        self._count_sent(frame)

    def offer_frame(self, frame: bytes) -> bool:
        """Send an Ethernet frame if there is room; False: it is dropped, and counted. Raises TunnelClosed."""
        if not self._outgoing.offer(FRAME_HEADER + frame):
            self.stats.frames_dropped += 1
            return False
        self._count_sent(frame)
        return True

    async def receive_frames(self) -> list[bytes]:
        """All frames that have arrived, waiting for one at least. Raises TunnelClosed."""
        return await self._incoming.take()

    async def frames(self) -> AsyncIterator[bytes]:
        """Frames one by one, for ever. Raises TunnelClosed."""
        while True:
            for frame in await self.receive_frames():
                yield frame

    async def ping(self, timeout_s: float = 5.0) -> float:
        """Seconds until the server answers a PING.

        Raises:
            TimeoutError: it did not.
            TunnelClosed
        """
        payload = next(self._numbers).to_bytes(8, "big")
        answered = self._pings[payload] = asyncio.get_running_loop().create_future()
        sent_at = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                await self._outgoing.put(encode(MessageType.PING, payload))
                self.stats.rtt_s = await answered - sent_at
        finally:
            del self._pings[payload]
        return self.stats.rtt_s

    def _count_sent(self, frame: bytes) -> None:
        self.stats.frames_sent += 1
        self.stats.bytes_sent += len(frame)

    # -- the two directions

    async def _read(self) -> None:
        try:
            async for message in self._websocket:
                if isinstance(message, bytes):
                    await self._take(message)
            self._end(self._closed())
        except (ConnectionClosed, OSError) as error:
            self._end(self._closed(error))
        except TunnelClosed:
            pass

    async def _take(self, message: bytes) -> None:
        if message[:3] == FRAME_HEADER[:3] and len(message) >= HEADER_BYTES:
            self.stats.frames_received += 1
            self.stats.bytes_received += len(message) - HEADER_BYTES
            await self._incoming.put(message[HEADER_BYTES:])
            return
        try:
            kind, _, payload = decode(message, _LIMITS)
        except MalformedMessage as fault:
            self._end(TunnelLost(f"it sends what is no message of {SUBPROTOCOL}: {fault}"))
            return
        if kind == MessageType.PING and len(payload) <= DEFAULT_MAX_CONTROL_PAYLOAD:
            await self._outgoing.put(encode(MessageType.PONG, payload))
        elif kind == MessageType.PONG and (waiting := self._pings.get(payload)) and not waiting.done():
            waiting.set_result(time.monotonic())
        elif kind == MessageType.ERROR:
            self._error_message = decode_error(payload)

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionClosed, OSError, ClientError):  # the reader says why
            while True:
                for message in await self._outgoing.take():
                    await self._websocket.send(message)

    # -- the end

    def _closed(self, error: Exception | None = None) -> TunnelClosed:
        code = self._websocket.close_code
        if (
            code is None
            or code == 1006
            or (code == 1011 and isinstance(error, ConnectionClosed) and error.sent and not error.rcvd)
        ):
            return TunnelLost(_lost(error), self._error_message)
        return TunnelClosed(code, self._websocket.close_reason or "", self._error_message)

    def _end(self, error: TunnelClosed) -> None:
        self._incoming.close(error)
        self._outgoing.close(error, drop=True)
        for waiting in self._pings.values():
            if not waiting.done():
                waiting.set_exception(error)

    async def _stop(self) -> None:
        """Let what is queued be written, for a moment, then end both directions."""
        here = TunnelClosed(1000, "closed here")
        self._outgoing.close(here)
        reader, writer = self._tasks
        await asyncio.wait((writer,), timeout=CLOSE_TIMEOUT_S)
        for task in (reader, writer):
            task.cancel()
        await asyncio.gather(reader, writer, return_exceptions=True)
        self._end(here)


def _is_unanswered(error: Exception | None) -> bool:
    """Whether websockets gave the connection up, for want of an answer to its ping."""
    return isinstance(error, ConnectionClosed) and error.rcvd is None and error.sent is not None


def _lost(error: Exception | None) -> str:
    cause = error.__cause__ if error is not None else None
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    if _is_unanswered(error):
        return "it does not answer any more"
    return "it ended without a close frame"
