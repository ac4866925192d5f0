"""A client of ``aero-l2-tunnel-v1``, written from the protocol's description and sharing no code with the
proxy."""

import asyncio
import socket
import ssl
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from support import addresses as at
from support.ns import Namespace
from support.wait import until

PROTOCOL = "aero-l2-tunnel-v1"
FRAME, PING, PONG, ERROR = 0x00, 0x01, 0x02, 0x7F
_HEADER = struct.Struct("!BBBB")
_MAGIC, _VERSION = 0xA2, 0x03


class RefusedError(Exception):
    """The upgrade was answered with something other than 101."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body


@dataclass(frozen=True)
class ErrorMessage:
    """An ERROR message: code and text."""

    code: int
    text: str


def encode(kind: int, payload: bytes, flags: int = 0) -> bytes:
    """One protocol message."""
    return _HEADER.pack(_MAGIC, _VERSION, kind, flags) + payload


def decode(message: bytes) -> tuple[int, bytes]:
    """Type and payload; asserts that the header is exactly what a server may send."""
    magic, version, kind, flags = _HEADER.unpack_from(message)
    assert (magic, version, flags) == (_MAGIC, _VERSION, 0), message[:4].hex()
    return kind, message[4:]


class Tunnel:
    """One open tunnel; what arrives is sorted into ``frames``, ``pongs``, ``pings`` and ``errors``."""

    def __init__(
        self,
        namespace: Namespace,
        port: int,
        path: str = "/l2",
        headers: Mapping[str, str] | None = None,
        credential: str | None = None,
        address: str = at.LOOPBACK,
    ) -> None:
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        self.pongs: list[bytes] = []
        self.pings: list[bytes] = []
        self.errors: list[ErrorMessage] = []
        self.close_code: int | None = None
        self.close_reason = ""
        self._namespace = namespace
        self._address = address
        self._port = port
        self._path = path
        self._headers = dict(headers or {})
        offered = [PROTOCOL, *([f"aero-l2-token.{credential}"] if credential is not None else [])]
        self._offered: list[Subprotocol] | None = [Subprotocol(name) for name in offered]
        self._agreed: str | None = PROTOCOL
        self._tls: ssl.SSLContext | None = None

    async def _dial(self) -> tuple[str, socket.socket]:
        """The address to ask for, and a connection to it."""
        sock = await asyncio.to_thread(self._namespace.connect, self._address, self._port)
        return f"ws://{self._address}:{self._port}{self._path}", sock

    async def __aenter__(self) -> Self:
        url, sock = await self._dial()
        try:
            self._socket: ClientConnection = await connect(
                url,
                sock=sock,
                ssl=self._tls,
                subprotocols=self._offered,
                additional_headers=self._headers,
                compression=None,
                ping_interval=None,
                max_size=None,
                max_queue=None,
                open_timeout=30,
                close_timeout=5,
                proxy=None,
            )
        except InvalidStatus as error:
            body = (error.response.body or b"").decode()
            raise RefusedError(error.response.status_code, body) from error
        assert self._socket.subprotocol == self._agreed
        self._reader = asyncio.create_task(self._read(), name="tunnel reader")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._socket.close()
        await self._reader

    async def _read(self) -> None:
        try:
            async for message in self._socket:
                assert isinstance(message, bytes), "the proxy sent text"
                self._take(message)
        except ConnectionClosed:
            pass
        self.close_code, self.close_reason = self._socket.close_code, self._socket.close_reason or ""

    def _take(self, message: bytes) -> None:
        self._sort(*decode(message))

    def _sort(self, kind: int, payload: bytes) -> None:
        if kind == FRAME:
            self.frames.put_nowait(payload)
        elif kind == PING:
            self.pings.append(payload)
        elif kind == PONG:
            self.pongs.append(payload)
        else:
            assert kind == ERROR, kind
            code, size = struct.unpack_from("!HH", payload)
            text = payload[4:].decode()
            assert size == len(payload) - 4
            self.errors.append(ErrorMessage(code, text))

    @property
    def is_open(self) -> bool:
        """Whether the proxy has not closed it."""
        return not self._reader.done()

    @property
    def local_port(self) -> int:
        """The client's port of the connection."""
        return int(self._socket.local_address[1])

    def write(self, data: bytes) -> None:
        """Bytes on the connection, past WebSocket."""
        self._socket.transport.write(data)

    async def send(self, frame: bytes) -> None:
        """Send an Ethernet frame as the guest."""
        await self._socket.send(encode(FRAME, frame))

    async def send_message(self, message: bytes | str) -> None:
        """Send a WebSocket message as it is."""
        await self._socket.send(message)

    async def receive(self, timeout_s: float = 10) -> bytes:
        """The next frame for the guest; raises TimeoutError."""
        return await asyncio.wait_for(self.frames.get(), timeout_s)

    async def ping(self, payload: bytes, timeout_s: float = 10) -> None:
        """A protocol PING, waiting for its PONG: everything sent before has been taken by the proxy then."""
        await self._socket.send(encode(PING, payload))
        await until(lambda: payload in self.pongs or not self.is_open, "a PONG", timeout_s)
        assert payload in self.pongs, f"closed: {self.close_code} {self.close_reason}"

    async def closed(self, timeout_s: float = 15) -> tuple[int | None, str]:
        """Wait for the proxy to close; code and reason."""
        await asyncio.wait_for(asyncio.shield(self._reader), timeout_s)
        return self.close_code, self.close_reason

    def abort(self) -> None:
        """Drop the TCP connection without a word."""
        self._socket.transport.abort()


class RawTunnel(Tunnel):
    """A tunnel as v86 opens one: no subprotocol, and each message is a frame."""

    def __init__(self, namespace: Namespace, port: int, path: str = "/v86") -> None:
        super().__init__(namespace, port, path)
        self._offered = None
        self._agreed = None

    def _take(self, message: bytes) -> None:
        self.frames.put_nowait(message)

    async def send(self, frame: bytes) -> None:
        """Send an Ethernet frame as the guest."""
        await self.send_message(frame)
