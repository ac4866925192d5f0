"""Joins a virtual machine's network socket to a tunnel: ``bridge.py stream|seqpacket SOCKET PORT``.

stream: QEMU's ``-netdev stream``, each frame behind four bytes of length, big-endian. seqpacket: User Mode
Linux, one message per frame. Listens on SOCKET, prints ``ready``, serves one machine over one tunnel to
127.0.0.1:PORT and ends with it.
"""

import asyncio
import socket
import struct
import sys
from collections.abc import AsyncIterator

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

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


async def _main(kind: str, path: str, port: int) -> None:
    kinds = {"stream": socket.SOCK_STREAM, "seqpacket": socket.SOCK_SEQPACKET}
    listener = socket.socket(socket.AF_UNIX, kinds[kind])
    listener.bind(path)
    listener.listen(1)
    listener.setblocking(False)
    print("ready", flush=True)
    connection, _ = await asyncio.get_running_loop().sock_accept(listener)
    machine = _StreamMachine(connection) if kind == "stream" else _Machine(connection)
    url = f"ws://127.0.0.1:{port}/l2"
    protocol = Subprotocol("aero-l2-tunnel-v1")
    async with connect(
        url, subprotocols=[protocol], compression=None, ping_interval=None, proxy=None
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
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
