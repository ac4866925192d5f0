"""What one tunnel asks of netd, the helper that all share, leaves the others' requests their room."""

import asyncio
import os
import select
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from ipaddress import IPv4Address

import pytest
from support import addresses as at
from support import zone
from support.floods import ARP_QUESTION, ARP_REPLY, datagram, masked, query
from support.load import HANDSHAKE, wait_upgraded
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import RawGuest, raw_guest
from support.wait import until
from support.world import World

_GUESTS = 8  # more than fill the socket, where the host allows none larger than usual
_OTHERS = 100
_NAMES = 150  # more than may wait of one tunnel


@pytest.fixture(scope="module")
def naming(world: World, proxy_as: RunAs) -> Iterator[Proxy]:
    """A proxy that opens addresses by their names."""
    with run_proxy(world, proxy_as, {"AERO_L2_ALLOWED_DOMAINS": "allowed.test"}) as proxy:
        yield proxy


@pytest.fixture
async def greedy(naming: Proxy) -> AsyncIterator[list[RawGuest]]:
    """Guests of which each has an address."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(raw_guest(naming)) for _ in range(_GUESTS)]


async def _ask_for_many(guest: RawGuest, first: int) -> None:
    """Questions whose answers each open an address; nobody waits for them."""
    for number in range(first, first + _NAMES):
        name = f"n{number}{zone.MANY}".rstrip(".").encode()
        await guest.tunnel.send(query(name, number, 2000 + number))


async def test_names_of_some_tunnels_leave_a_slow_netd_room_for_another(
    naming: Proxy, greedy: list[RawGuest]
) -> None:
    """It is stopped meanwhile: what it is asked stays where it is."""
    netd = naming.one("netd")
    asked = naming.metric("l2_dns_queries_total")
    os.kill(netd, signal.SIGSTOP)
    try:
        for number, guest in enumerate(greedy):
            await _ask_for_many(guest, number * _NAMES)
        await until(
            lambda: naming.metric("l2_dns_queries_total") >= asked + _GUESTS * _NAMES,
            "all names are asked for",
        )
        async with asyncio.TaskGroup() as tasks:
            opening = tasks.create_task(_open_and_use(naming))
            with pytest.raises(TimeoutError):  # it waits for netd, and is not refused
                await asyncio.wait_for(asyncio.shield(opening), 1)
            os.kill(netd, signal.SIGCONT)
    finally:
        os.kill(netd, signal.SIGCONT)


async def _open_and_use(proxy: Proxy) -> None:
    async with raw_guest(proxy) as guest:
        await guest.resolve("web.allowed.test")
        await guest.echo(b"a tunnel of its own")


def _echoed(connection: socket.socket) -> None:
    """A datagram to the internet and back, whenever the NAT is there; sent once."""
    data = b"the first packet"
    connection.sendall(masked(datagram(IPv4Address(at.WEB).packed, 6000, at.ECHO_PORT, data)))
    while data not in (came := connection.recv(65536)):
        assert came, "the tunnel was closed"
        if ARP_QUESTION in came:
            connection.sendall(ARP_REPLY)


def _has_answer(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0])


def test_nat_of_a_tunnel_is_there_before_those_behind_it_in_the_queue_are_set_up(
    world: World, proxy_as: RunAs
) -> None:
    """A hundred upgrades wait for netd behind its own; they are not what its first packet waits for."""
    with run_proxy(world, proxy_as, {"AERO_L2_MAX_CONNECTIONS": "0"}) as proxy, ExitStack() as stack:
        first, *others = (
            stack.enter_context(world.host.connect(at.LOOPBACK, proxy.port)) for _ in range(1 + _OTHERS)
        )
        for connection in (first, *others):
            connection.settimeout(60)
            connection.sendall(HANDSHAKE)
        wait_upgraded(first)
        _echoed(first)
        ahead = sum(map(_has_answer, others))
        for connection in others:
            wait_upgraded(connection)
    print(f"{ahead} of {_OTHERS} were set up before the first packet was answered")
    assert ahead < 0.8 * _OTHERS
