"""Joins a virtual machine's network socket to a tunnel: ``bridge.py stream|seqpacket SOCKET URL [ORIGIN]``.

stream: QEMU's ``-netdev stream``, each frame behind four bytes of length, big-endian. seqpacket: User Mode
Linux, one message per frame. Listens on SOCKET, prints ``ready``, serves one machine over one tunnel to
URL (``ws://…/l2?token=…``; a port alone is one of 127.0.0.1) and ends with it. The Origin is URL's own unless
given.
"""

import asyncio
import socket
import struct
import sys
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

_FRAME_HEADER = b"\xa2\x03\x00\x00"
_LENGTH = struct.Struct("!I")
_MESSAGE = 65536


class _Machine:
    """The machine's end: frames in and out of a connected socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()

    async def frames(self) -> AsyncIterator[bytes]:
        while message := await self._loop.sock_recv(self._connection, _MESSAGE):
            yield message

    async def write(self, frame: bytes) -> None:
        await self._loop.sock_sendall(self._connection, frame)


class _StreamMachine(_Machine):
    async def frames(self) -> AsyncIterator[bytes]:
        buffer = bytearray()
        while chunk := await self._loop.sock_recv(self._connection, _MESSAGE):
            buffer += chunk
            while len(buffer) >= 4 and len(buffer) >= 4 + (size := _LENGTH.unpack_from(buffer)[0]):
                yield bytes(buffer[4 : 4 + size])
                del buffer[: 4 + size]

    async def write(self, frame: bytes) -> None:
        await super().write(_LENGTH.pack(len(frame)) + frame)


async def _to_tunnel(machine: _Machine, tunnel: ClientConnection) -> None:
    async for frame in machine.frames():
        await tunnel.send(_FRAME_HEADER + frame)


async def _to_machine(machine: _Machine, tunnel: ClientConnection) -> None:
    async for message in tunnel:
        if isinstance(message, bytes) and message.startswith(_FRAME_HEADER):
            await machine.write(message[4:])
    print(f"tunnel closed: {tunnel.close_code} {tunnel.close_reason}", file=sys.stderr)


async def _main(kind: str, path: str, url: str, origin: str | None = None) -> None:
    kinds = {"stream": socket.SOCK_STREAM, "seqpacket": socket.SOCK_SEQPACKET}
    listener = socket.socket(socket.AF_UNIX, kinds[kind])
    listener.bind(path)
    listener.listen(1)
    listener.setblocking(False)
    print("ready", flush=True)
    connection, _ = await asyncio.get_running_loop().sock_accept(listener)
    machine = _StreamMachine(connection) if kind == "stream" else _Machine(connection)
    url = f"ws://127.0.0.1:{url}/l2" if url.isdigit() else url
    parts = urlsplit(url)
    own = f"{parts.scheme.replace('ws', 'http', 1)}://{parts.netloc}"
    async with connect(
        url,
        origin=Origin(origin or own),
        subprotocols=[Subprotocol("aero-l2-tunnel-v1")],
        compression=None,
        ping_interval=None,
        proxy=None,
    ) as tunnel:
        directions = [
            asyncio.create_task(_to_tunnel(machine, tunnel)),
            asyncio.create_task(_to_machine(machine, tunnel)),
        ]
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        for direction in directions:
            direction.cancel()
        await asyncio.gather(*directions, return_exceptions=True)


if __name__ == "__main__":
    if not (4 <= len(sys.argv) <= 5 and sys.argv[1] in ("stream", "seqpacket")):
        sys.exit("usage: bridge.py stream|seqpacket SOCKET URL [ORIGIN]")
    try:
        asyncio.run(_main(*sys.argv[1:]))
    except InvalidStatus as refused:
        body = (refused.response.body or b"").decode("utf-8", "replace")
        sys.exit(f"the proxy refused: {refused.response.status_code} {body}")
