"""Ends TLS for a card: ``python -m bench.tls HOST PORT FD``, bytes between a socket pair and a wss server."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 18):
        writer.write(data)
        await writer.drain()
    writer.close()


async def main(host: str, port: int, fd: int) -> None:
    """Until either side ends."""
    near = await asyncio.open_connection(sock=socket.socket(fileno=fd))
    far = await asyncio.open_connection(host, port, ssl=ssl.create_default_context())
    ways = [asyncio.create_task(_pump(near[0], far[1])), asyncio.create_task(_pump(far[0], near[1]))]
    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
