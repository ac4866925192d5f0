"""A door in the test's own process, with a socket pair for a segment, and raw clients for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from aero_l2.config import Settings, load
from aero_l2.door.server import DoorServer, serve
from aero_l2.errors import SegmentUnavailable
from aero_l2.observe.capture.captures import Captures
from aero_l2.observe.capture.rules import CaptureRules
from aero_l2.observe.metrics import Metrics
from aero_l2.session.keepalive import PING_INTERVAL_S

PAIR = {
    "AERO_L2_OPEN": "1",
    "AERO_L2_INSECURE_ALLOW_NO_AUTH": "1",
    "AERO_L2_PROXY_LISTEN_ADDR": "127.0.0.1:0",
}
UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
)
OFFER = "Sec-WebSocket-Protocol: aero-l2-tunnel-v1\r\n"


class FakeSegment:
    """`tap` is what the pump holds; `wire` the far end, one message a frame."""

    def __init__(self) -> None:
        near, self.wire = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        near.setblocking(False)
        self.wire.setblocking(False)
        self.tap = near.detach()
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.nat_ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def close(self) -> None:
        os.close(self.tap)
        self.wire.close()


@dataclass
class Opener:
    """Makes fake segments; `refuse` and `hold` make it fail or wait, `live` knows what is not released.

    nat: whether they have a NAT process that is ready.
    """

    refuse: str = ""
    hold: asyncio.Event | None = None
    nat: bool = True
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    live: dict[int, FakeSegment] = field(default_factory=dict)

    @asynccontextmanager
    async def __call__(self, session_id: int) -> AsyncIterator[FakeSegment]:
        if self.refuse:
            raise SegmentUnavailable(self.refuse)
        segment = self.live[session_id] = FakeSegment()
        if self.nat:
            segment.nat_ready.set_result(None)
        self.entered.set()
        try:
            if self.hold is not None:
                await self.hold.wait()
            yield segment
        finally:
            del self.live[session_id]
            segment.close()

    @property
    def only(self) -> FakeSegment:
        (segment,) = self.live.values()
        return segment


@dataclass
class Ready:
    """A readiness that says what it is told."""

    reason: str | None = None

    def unready_reason(self) -> str | None:
        return self.reason


@dataclass
class Stand:
    """A running door with everything a test may want to look at."""

    door: DoorServer
    opener: Opener
    readiness: Ready
    metrics: Metrics

    def value(self, name: str, **labels: str) -> float:
        """A metric as it is exposed."""
        value = self.metrics.registry.get_sample_value(name, labels)
        assert value is not None, name
        return value

    async def client(self, path: str = "/l2") -> ClientConnection:
        """A WebSocket client with the tunnel's subprotocol; the test closes it."""
        url = f"ws://127.0.0.1:{self.door.port}{path}"
        offer = [Subprotocol("aero-l2-tunnel-v1")]
        return await connect(url, subprotocols=offer, compression="deflate", max_size=None, proxy=None)

    async def raw_client(self, path: str = "/v86") -> ClientConnection:
        """A WebSocket client as v86 is one: it offers nothing; the test closes it."""
        url = f"ws://127.0.0.1:{self.door.port}{path}"
        return await connect(url, compression=None, max_size=None, proxy=None, ping_interval=None)

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A bare TCP connection."""
        return await asyncio.open_connection("127.0.0.1", self.door.port)

    async def ask(self, request: str | bytes) -> tuple[int, dict[str, str], bytes]:
        """Send bytes, read to the end: status, headers in lower case, body."""
        reader, writer = await self.raw()
        writer.write(request.encode() if isinstance(request, str) else request)
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        head, _, body = answer.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(status.split()[1]), headers, body

    async def until(self, condition: object, what: str) -> None:
        """Wait until a callable is true, at most five seconds."""
        assert callable(condition)
        for _ in range(500):
            if condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"not within 5 s: {what}")


def settings(**variables: str) -> Settings:
    """Settings for a door on loopback, any port."""
    return load(PAIR | variables).settings


@asynccontextmanager
async def standing(*, ping_interval_s: float = PING_INTERVAL_S, **variables: str) -> AsyncIterator[Stand]:
    """A door for a test; on the way out nothing may be left behind."""
    opener, readiness, metrics = Opener(), Ready(), Metrics()
    given = settings(**variables)
    rules = CaptureRules.of(given)
    captures = Captures(rules, metrics) if rules is not None else None
    door = await serve(given, opener, readiness, metrics, ping_interval_s=ping_interval_s, captures=captures)
    try:
        yield Stand(door, opener, readiness, metrics)
    finally:
        await door.close()
        if captures is not None:
            assert await captures.finish(30) == 0
    assert door.active == 0
    assert not opener.live
    assert metrics.registry.get_sample_value("l2_sessions_active") == 0


async def bare_tunnel(
    stand: Stand, path: str = "/l2", more: str = OFFER, receive_buffer: int = 0
) -> socket.socket:
    """An open tunnel as a socket of which nobody reads or answers anything. ``receive_buffer``: bytes."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", stand.door.port))
    await loop.sock_sendall(sock, UPGRADE.format(path=path, more=more).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await loop.sock_recv(sock, 1)
    return sock


async def from_wire(stand: Stand) -> bytes:
    """The next frame that its only tunnel writes to the TAP."""
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(stand.opener.only.wire, 4096), 5)
