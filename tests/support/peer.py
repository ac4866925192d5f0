"""A server that says exactly what a test wants, byte by byte, to a client that has to survive it.

It shakes hands as RFC 6455 asks and then runs the test's script; nothing of a WebSocket library is in it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
HEADERS = {"frame": b"\xa2\x03\x00\x00", "ping": b"\xa2\x03\x01\x00", "pong": b"\xa2\x03\x02\x00"}
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    """One unmasked WebSocket frame."""
    return bytes([opcode | (0x80 if final else 0)]) + _length(len(payload)) + payload


def _length(size: int) -> bytes:
    if size < 126:
        return bytes([size])
    return b"\x7e" + size.to_bytes(2, "big") if size < 1 << 16 else b"\x7f" + size.to_bytes(8, "big")


def ethernet(payload: bytes) -> bytes:
    """A FRAME message in its WebSocket frame."""
    return frame(BINARY, HEADERS["frame"] + payload)


def error(code: int, text: str) -> bytes:
    """An ERROR message in its WebSocket frame."""
    said = text.encode()
    return frame(BINARY, b"\xa2\x03\x7f\x00" + struct.pack("!HH", code, len(said)) + said)


def close(code: int | None = None, reason: str | bytes = b"") -> bytes:
    """A close frame."""
    said = reason.encode() if isinstance(reason, str) else reason
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + said)


class Peer:
    """The server's end of one connection; ``request`` is the head of the upgrade."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.request = ""

    async def read_request(self) -> None:
        """Read the upgrade's head."""
        self.request = (await self.reader.readuntil(b"\r\n\r\n")).decode()

    def headers(self, name: str) -> list[str]:
        """The values of a request header."""
        lines = [line.partition(": ") for line in self.request.split("\r\n")[1:]]
        return [value for key, _, value in lines if key.lower() == name.lower()]

    def accept(self, *more: str, subprotocol: str | None = "aero-l2-tunnel-v1", behind: bytes = b"") -> None:
        """Answer 101; ``behind``: bytes in the same write."""
        key = self.headers("Sec-WebSocket-Key")[0] + _GUID
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()}",
            *([f"Sec-WebSocket-Protocol: {subprotocol}"] if subprotocol else []),
            *more,
        ]
        self.send("\r\n".join([*lines, "", ""]).encode() + behind)

    def send(self, data: bytes) -> None:
        """Write bytes."""
        self.writer.write(data)

    async def flood(self, data: bytes) -> None:
        """Write the same for ever."""
        while True:
            self.writer.write(data)
            await self.writer.drain()

    async def receive(self) -> tuple[int, bytes]:
        """The client's next frame: opcode and payload, unmasked."""
        first, second = await self.reader.readexactly(2)
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
        mask = await self.reader.readexactly(4)
        data = await self.reader.readexactly(size)
        return first & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))

    async def message(self) -> bytes:
        """The client's next binary message."""
        opcode, payload = await self.receive()
        assert opcode == BINARY, (opcode, payload)
        return payload

    async def gone(self) -> bytes:
        """Wait for the client's end of the connection; what it sent until then."""
        rest = b""
        with contextlib.suppress(ConnectionError):
            rest = await self.reader.read()
        return rest


Script = Callable[[Peer], Awaitable[None]]


class Server:
    """Runs one script per connection, the last one again and again; ``peers`` has every connection."""

    def __init__(self, scripts: tuple[Script, ...], *, handshake: bool) -> None:
        self.peers: list[Peer] = []
        self.port = 0
        self.scheme = "ws"
        self._scripts = scripts
        self._handshake = handshake
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Its address."""
        return f"{self.scheme}://127.0.0.1:{self.port}/l2"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(reader, writer)
        self.peers.append(peer)
        script = self._scripts[min(len(self.peers), len(self._scripts)) - 1]
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await peer.read_request()
                if self._handshake:
                    peer.accept()
                await script(peer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def stop(self) -> None:
        """End every connection that a script left open."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def serving(
    *scripts: Script, handshake: bool = True, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """A server on 127.0.0.1. ``handshake``: False leaves the answer to the script, too."""
    server = Server(scripts, handshake=handshake)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    server.scheme = "ws" if tls is None else "wss"
    try:
        yield server
    finally:
        listener.close()
        await server.stop()
