"""Connections to the DNS of all tunnels share the process's descriptors: the loudest tunnel pays."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest
from support.wait import until

from aero_l2.quota.waiting import Waiting
from aero_l2.services.dns.connection import Connection
from aero_l2.services.dns.responder import Responder
from aero_l2.services.dns.tcp import TcpListener

POOL = 4
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """Answers every query with itself."""

    def handle(self, wire: bytes, deliver: Callable[[bytes | None], None], *, tcp: bool) -> None:
        """See `Responder.handle`."""
        deliver(wire)


class Tunnel:
    """A listener as a tunnel has one, on loopback."""

    def __init__(self, pool: Waiting[Connection]) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._socket.setblocking(False)
        self.listener = TcpListener(self._socket.fileno(), cast(Responder, Echo()), pool=pool)
        self.listener.start()

    async def connect(self) -> Stream:
        """A connection that the listener has taken."""
        before = self.listener.connections
        stream = await asyncio.open_connection(*self._socket.getsockname())
        await until(lambda: self.listener.connections > before, "it is taken")
        return stream

    async def close(self) -> None:
        """Nothing is left of it."""
        self.listener.stop()
        await self.listener.wait_stopped()
        self._socket.close()


async def answers(stream: Stream) -> bool:
    """Whether a query is answered."""
    try:
        stream[1].write(b"\0\3abc")
        return await asyncio.wait_for(stream[0].readexactly(5), 5) == b"\0\3abc"
    except (ConnectionError, EOFError):
        return False


@pytest.fixture
async def tunnels() -> AsyncIterator[tuple[Tunnel, Tunnel, Waiting[Connection]]]:
    pool: Waiting[Connection] = Waiting(POOL)
    loud, quiet = Tunnel(pool), Tunnel(pool)
    yield loud, quiet, pool
    await loud.close()
    await quiet.close()
    assert len(pool) == 0


async def test_one_too_many_ends_the_oldest_of_the_loudest(
    tunnels: tuple[Tunnel, Tunnel, Waiting[Connection]],
) -> None:
    loud, quiet, pool = tunnels
    first, *others = [await loud.connect() for _ in range(POOL)]
    mine = await quiet.connect()
    await until(lambda: loud.listener.connections == POOL - 1, "the oldest is gone")
    assert not await answers(first)
    assert await answers(mine)
    assert [await answers(one) for one in others] == [True] * (POOL - 1)
    assert len(pool) == POOL


async def test_place_of_a_connection_that_ends_is_free(
    tunnels: tuple[Tunnel, Tunnel, Waiting[Connection]],
) -> None:
    loud, quiet, pool = tunnels
    streams = [await loud.connect() for _ in range(POOL)]
    streams[0][1].close()
    await until(lambda: len(pool) == POOL - 1, "its place is free")
    assert await answers(await quiet.connect())
    assert loud.listener.connections == POOL - 1


async def test_connections_that_come_in_one_turn_are_bounded_too() -> None:
    """One of them is ended before it is open."""
    pool: Waiting[Connection] = Waiting(1)
    tunnel = Tunnel(pool)
    streams = await asyncio.gather(
        *(asyncio.open_connection(*tunnel._socket.getsockname()) for _ in range(8))
    )
    await until(lambda: tunnel.listener.connections == len(pool) == 1, "one is left")
    await tunnel.close()
    for _, writer in streams:
        writer.close()
