"""Scrapes of a busy server: 64 tunnels, of which some flood, and what that costs scraper and tunnels."""

import asyncio
from ipaddress import IPv4Address

import pytest
from support import addresses as at
from support import floods
from support.proxy import RunAs, run_proxy
from support.rawguest import raw_guest
from support.scraping import crowd, scraped
from support.tunnel import Tunnel
from support.world import World

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.parametrize("proxy_as", ["root"], indirect=True),  # who started it makes no difference here
]
TUNNELS = 64
SCRAPE_S, BLOCK_S = 0.1, 0.005
"""The goals; machines of tests get five times as long, and more beside a flood."""


async def test_sixty_four_tunnels_are_scraped_under_load(world: World, proxy_as: RunAs) -> None:
    with run_proxy(world, proxy_as, {"AERO_L2_LOG_LEVEL": "warning"}) as proxy, crowd(proxy, TUNNELS - 2):
        async with raw_guest(proxy) as guest:
            await guest.echo(b"the NAT is up")
            idle = await scraped(proxy, 20)
            frame = floods.datagram(IPv4Address(at.WEB).packed, 5000, at.ECHO_PORT, bytes(1000))
            flooding = asyncio.ensure_future(_flood(guest.tunnel, frame))
            loaded = await scraped(proxy, 20)
            flooding.cancel()
        now = proxy.metrics()
        assert now["l2_sessions_active"] == TUNNELS - 2
        assert now['aero_l2_processes{process="nat"}'] >= TUNNELS - 2
    for name, found in (("idle", idle), ("loaded", loaded)):
        print(
            name,
            *(f"{1000 * value:.1f}" for value in (found.scrapes[10], found.scrapes[-1], found.pings[-1])),
        )
    assert idle.scrapes[10] < 5 * SCRAPE_S
    assert loaded.scrapes[10] < 10 * SCRAPE_S
    assert idle.pings[len(idle.pings) // 2] < 5 * BLOCK_S


async def _flood(tunnel: Tunnel, frame: bytes) -> None:
    while True:
        for _ in range(200):
            await tunnel.send(frame)
        await asyncio.sleep(0)
