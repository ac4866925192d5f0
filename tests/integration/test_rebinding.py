"""DNS rebinding: a name with TTL 0 that is public first and private from then on, on a running proxy."""

import uuid
from collections.abc import Iterator

import dns.message
import dns.rcode
import pytest
from support import addresses as at
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import RawGuest, raw_guest
from support.world import Event, World


@pytest.fixture(scope="module")
def allowing(world: World, proxy_as: RunAs) -> Iterator[Proxy]:
    """A proxy that allows the attacker's domain."""
    with run_proxy(world, proxy_as, {"AERO_L2_ALLOWED_DOMAINS": "rebind.test"}) as proxy:
        yield proxy


async def look_up(guest: RawGuest, name: str) -> list[str]:
    query = dns.message.make_query(name, "A")
    answer = dns.message.from_wire(await guest.udp(at.GATEWAY, 53, query.to_wire()))
    assert answer.rcode() == dns.rcode.NOERROR
    return [rdata.address for rrset in answer.answer for rdata in rrset]


def private_site(proxy: Proxy) -> list[Event]:
    return proxy.world.internet_services.reached(f"{at.PRIVATE_SITE}:{at.SERVICE_PORT}")


async def attack(proxy: Proxy) -> None:
    """The page is loaded from the public address, then reads from the private one under the same name."""
    reached = len(private_site(proxy))
    proxy.wait_settled()
    name = f"x{uuid.uuid4().hex}.rebind.test"
    async with raw_guest(proxy) as guest:
        assert await look_up(guest, name) == [at.WEB]
        await guest.echo(b"the attacker's page")
        denied = proxy.metric("l2_policy_denied_total")
        for _ in range(3):
            assert await look_up(guest, name) == []
        for address in (at.PRIVATE_SITE, at.HOST_PRIVATE, at.OTHER):
            assert await guest.try_tcp(address, at.SERVICE_PORT) == "reset"
            assert await guest.try_udp(address, at.SERVICE_PORT) == "prohibited"
        assert await guest.try_tcp(at.WEB, at.HTTP_PORT) == "answered"
    proxy.wait_settled()
    assert len(private_site(proxy)) == reached
    assert proxy.metric("l2_policy_denied_total") == denied + 6


async def test_name_that_turns_private_opens_nothing_by_default(proxy: Proxy) -> None:
    await attack(proxy)


async def test_name_that_turns_private_opens_nothing_although_it_is_allowed(allowing: Proxy) -> None:
    await attack(allowing)
