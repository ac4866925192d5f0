"""What the door listens on: a socket of its own, or those that were handed to it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Final

BACKLOG: Final = 512
QUEUE: Final = 65_535
"""Of a socket that outlives us: who comes while nobody serves waits there; the kernel's limit is lower
(net.core.somaxconn)."""


class Listener:
    """Accepts connections; each gets a protocol of its own. `close` ends that and nothing else."""

    def __init__(self, factory: Callable[[], asyncio.Protocol]) -> None:
        self._factory = factory
        self._servers: list[asyncio.Server] = []

    async def bind(self, host: str, port: int) -> None:
        """Listen there.

        Raises:
            OSError: the address cannot be bound.
        """
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self._factory, host, port, backlog=BACKLOG, reuse_address=True)
        self._servers.append(server)

    async def take(self, sockets: Sequence[socket.socket]) -> None:
        """Listen on these, which others may hold too; they are owned from now on."""
        loop = asyncio.get_running_loop()
        for sock in sockets:
            self._servers.append(await loop.create_server(self._factory, sock=sock, backlog=BACKLOG))
            sock.listen(QUEUE)  # asyncio's number is also how many it accepts at a time

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Addresses and ports that are listened on."""
        return [sock.getsockname()[:2] for server in self._servers for sock in server.sockets]

    def close(self) -> None:
        """Accept nobody any more; idempotent."""
        for server in self._servers:
            server.close()
