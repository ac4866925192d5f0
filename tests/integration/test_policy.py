"""The operator's own egress policy on a running proxy: what explicit prefixes and ports open and close."""

from collections.abc import Iterator

import pytest
from support import addresses as at
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import raw_guest
from support.world import World


@pytest.fixture(scope="module")
def lists(world: World, proxy_as: RunAs) -> Iterator[Proxy]:
    """A proxy that opens an address of the host, a private prefix and cloud metadata, and closes one."""
    settings = {
        "AERO_L2_ALLOWED_CIDRS": f"{at.HOST_PUBLIC},10.1.0.0/16,{at.METADATA},{at.CDN}",
        "AERO_L2_DENIED_CIDRS": f"{at.CDN}/32",
        "AERO_L2_ALLOWED_TCP_PORTS": f"{at.HTTP_PORT},8080-{at.SERVICE_PORT}",
    }
    with run_proxy(world, proxy_as, settings) as proxy:
        yield proxy


@pytest.mark.parametrize("address", [at.HOST_PUBLIC, at.PRIVATE_SITE, at.METADATA])
async def test_allowed_prefix_opens_what_is_denied_otherwise(lists: Proxy, address: str) -> None:
    async with raw_guest(lists) as guest:
        assert await guest.try_tcp(address, at.SERVICE_PORT) == "answered"
        assert await guest.try_udp(address, at.SERVICE_PORT) == "answered"


async def test_allowed_prefix_opens_nothing_else_and_denied_ones_win(lists: Proxy) -> None:
    async with raw_guest(lists) as guest:
        for address in (at.HOST_PRIVATE, at.OTHER, at.LOOPBACK, at.NAT, at.CDN):
            assert await guest.try_tcp(address, at.HTTP_PORT) == "reset", address
            assert await guest.try_tcp(address, at.SERVICE_PORT) == "reset", address


async def test_only_allowed_ports_are_within_reach(lists: Proxy) -> None:
    async with raw_guest(lists) as guest:
        assert await guest.try_tcp(at.WEB, at.HTTP_PORT) == "answered"
        assert await guest.try_tcp(at.WEB, at.ECHO_PORT) == "reset"
        assert await guest.try_udp(at.WEB, at.ECHO_PORT) == "answered"
