"""The host's resolvers are dead: names fail in time and in plain words, everything else goes on."""

import asyncio
import time

import pytest
from support.cut import cut
from support.proxy import Proxy
from support.rawguest import raw_guest
from support.wait import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("proxy_as", ["user"], indirect=True),  # who started it makes no difference here
]

NOERROR, SERVFAIL = 0, 2
LOOKUP_S = 2.0


@pytest.mark.parametrize("how", ["silent", "refusing"])
async def test_dead_resolvers_cost_names_and_nothing_else(own_proxy: Proxy, how: str) -> None:
    async with raw_guest(own_proxy) as bystander, raw_guest(own_proxy) as guest:
        await bystander.echo(b"works")
        assert (await guest.resolve("web.example.test")).rcode == NOERROR
        world = own_proxy.world
        # The answers are dropped, or the questions refused with an ICMP error.
        with cut(world.internet if how == "silent" else world.host) as dropped:
            if how == "silent":
                dropped.drop("udp sport 53", "tcp sport 53")
            else:
                dropped.refuse("udp dport 53", "tcp dport 53")
            assert (await guest.resolve("web.example.test")).rcode == NOERROR, "known already"
            started = time.monotonic()
            asked = 0
            while "DNS servers do not answer" not in own_proxy.log:
                asked += 1
                assert asked < 500
                before = time.monotonic()
                assert (await guest.resolve(f"n{asked}.many.allowed.test")).rcode == SERVFAIL
                assert time.monotonic() - before < 5 * LOOKUP_S
                await bystander.echo(b"goes on")
                await asyncio.sleep(0.2)
            print(f"{how}: said after {time.monotonic() - started:.1f} s and {asked} questions")
            assert own_proxy.metric("l2_dns_fail_total") >= asked
            assert own_proxy.get("/readyz")[0] == 200
        assert (await guest.resolve("cdn.example.test")).rcode == NOERROR
        await until(lambda: "DNS servers answer again" in own_proxy.log, "it is in the log")
        assert own_proxy.log.count("DNS servers do not answer") == 1
        await guest.echo(b"goes on")
