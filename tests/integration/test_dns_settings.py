"""What the settings change of a running proxy's DNS."""

import pytest
from support import addresses as at
from support.proxy import RunAs, run_proxy
from support.rawguest import RawGuest, raw_guest
from support.world import World

pytestmark = pytest.mark.slow

NOERROR, SERVFAIL, NXDOMAIN = 0, 2, 3
NAME = "web.example.test"
LOCAL = ("printer.local", "intranet", "1.0.168.192.in-addr.arpa")


async def rcodes(guest: RawGuest, *names: str) -> list[int]:
    return [(await guest.resolve(name)).rcode for name in names]


@pytest.mark.parametrize(
    ("servers", "rcode"), [(f"{at.NAMESERVER}:53", NOERROR), (f"{at.LOOPBACK}:1", SERVFAIL)]
)
async def test_given_servers_are_asked_and_no_others(
    world: World, proxy_as: RunAs, servers: str, rcode: int
) -> None:
    with run_proxy(world, proxy_as, {"AERO_L2_DNS_SERVERS": servers}) as proxy:
        async with raw_guest(proxy) as guest:
            assert await rcodes(guest, NAME) == [rcode]


@pytest.mark.parametrize(("private", "denied", "failed"), [("0", 3, 0), ("1", 0, 3)])
async def test_local_names_are_denied_unless_private_addresses_are_allowed(
    world: World, proxy_as: RunAs, private: str, denied: int, failed: int
) -> None:
    """The name server of this world does not know them either, so only the counters tell who answered."""
    with run_proxy(world, proxy_as, {"AERO_L2_ALLOW_PRIVATE_IPS": private}) as proxy:
        async with raw_guest(proxy) as guest:
            assert await rcodes(guest, *LOCAL) == [NXDOMAIN] * 3
            assert proxy.metric("l2_dns_fail_total") == failed
            assert proxy.metric("l2_policy_denied_total") == denied
