"""Ends TLS for a card: ``python -m bench.tls HOST PORT FD``, bytes between a socket pair and a wss server.

Where it comes to no TLS, it answers as a proxy would: with 502 and the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys

from aero_l2.client.errors import printable
from bench.beginning import LIMIT_S


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 18):
            writer.write(data)
            await writer.drain()
    writer.close()


async def main(host: str, port: int, fd: int) -> None:
    """Until either side ends."""
    near = await asyncio.open_connection(sock=socket.socket(fileno=fd))
    try:
        async with asyncio.timeout(LIMIT_S):
            far = await asyncio.open_connection(host, port, ssl=ssl.create_default_context())
    except (OSError, UnicodeError) as error:
        near[1].write(f"HTTP/1.1 502 {printable(str(error))}\r\n\r\n".encode())
        near[1].close()
        with contextlib.suppress(OSError):
            await near[1].wait_closed()
        return
    ways = [asyncio.create_task(_pump(near[0], far[1])), asyncio.create_task(_pump(far[0], near[1]))]
    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
