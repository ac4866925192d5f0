"""What a guest pings, and how it takes the answers, is nothing that others notice.

ICMP messages of all namespaces, the host's own too, come from one socket for each processor, whose buffer is
everybody's.
"""

import asyncio
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest
from support import addresses as at
from support import floods
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import RawGuest, raw_guest
from support.tunnel import Tunnel
from support.world import World

_GATEWAY = IPv4Address(at.GATEWAY).packed
_ROUNDS = 10
_PINGS = 300  # of 1,400 bytes: several times what that buffer holds
_PATIENCE_S = 1.0  # of others, which are answered within milliseconds; a busy machine loses one now and then


@pytest.fixture(scope="module")
def slow(world: World, proxy_as: RunAs) -> Iterator[Proxy]:
    """A proxy whose tunnels queue what is beyond a number of bytes a second."""
    with run_proxy(world, proxy_as, {"AERO_L2_MAX_BYTES_PER_SECOND": "20000"}) as proxy:
        yield proxy


async def _lost_meanwhile(other: RawGuest, hostile: Tunnel) -> int:
    """How many pings of another guest are not answered while one sends as many as it can."""
    lost = 0
    for turn in range(_ROUNDS):
        for number in range(_PINGS):
            await hostile.send(floods.echo(_GATEWAY, number, bytes(1400)))
        await hostile.ping(b"turn %d" % turn, timeout_s=60)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                assert await other.ping(at.GATEWAY)
        except TimeoutError:
            lost += 1
    return lost


async def test_guest_that_answers_no_arp_leaves_others_their_pings(proxy: Proxy) -> None:
    async with raw_guest(proxy) as other, proxy.tunnel() as hostile:
        await other.ping(at.GATEWAY)
        assert await _lost_meanwhile(other, hostile) < _ROUNDS / 3


async def test_guest_over_its_bytes_a_second_leaves_others_their_pings(slow: Proxy) -> None:
    async with raw_guest(slow) as other, raw_guest(slow) as hostile:
        await other.ping(at.GATEWAY)
        await hostile.ping(at.GATEWAY)
        assert await _lost_meanwhile(other, hostile.tunnel) < _ROUNDS / 3
