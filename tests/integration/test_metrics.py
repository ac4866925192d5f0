"""What `/metrics` says of the packets of tunnels, compared with what guests sent."""

from contextlib import AsyncExitStack

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Raw
from support import addresses as at
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import RawGuest, raw_guest
from support.wait import until
from support.world import World

_DELAY_S = 8.0  # a metric may be two seconds old, four right after a tunnel opened; the machine may be busy
_CLOSED_PORT = 4711
BLOCKS = "aero_l2_python_blocks"
DENIED = "l2_policy_denied_total"
CONNECTS_FAILED = "l2_tcp_connect_fail_total"
DATAGRAMS_FAILED = "l2_udp_send_fail_total"
FLOWS_REFUSED = "l2_udp_flow_limit_exceeded_total"

pytestmark = pytest.mark.slow


async def _send_denied(guest: RawGuest, count: int) -> None:
    """Multicast, which is refused without an answer: nobody sends it again; then wait until it is judged."""
    for number in range(count):
        await guest.send(IP(src=at.GUEST, dst="224.0.0.251") / UDP(dport=5353) / Raw(bytes([number])))
    assert await guest.ping(at.GATEWAY)


async def test_denied_packets_of_all_tunnels_are_counted(own_proxy: Proxy) -> None:
    async with raw_guest(own_proxy) as first, raw_guest(own_proxy) as second:
        await _send_denied(first, 7)
        await _send_denied(second, 5)
        await until(lambda: own_proxy.metric(DENIED) == 12, "the denied packets of both", _DELAY_S)
        await _send_denied(second, 3)
        await until(lambda: own_proxy.metric(DENIED) == 15, "those that came later", _DELAY_S)
    assert own_proxy.metric(FLOWS_REFUSED) == 0


async def test_blocks_of_python_objects_follow_what_is_alive(own_proxy: Proxy) -> None:
    async with raw_guest(own_proxy):  # what is loaded or filled once
        pass
    await until(lambda: not own_proxy.with_role("nat"), "it is undone")
    before = own_proxy.metric(BLOCKS)
    async with AsyncExitStack() as stack:
        for _ in range(20):
            await stack.enter_async_context(raw_guest(own_proxy))
        meanwhile = own_proxy.metric(BLOCKS)
    await until(lambda: not own_proxy.with_role("nat"), "all are undone")
    after = own_proxy.metric(BLOCKS)
    assert before > 50_000
    assert meanwhile - before > 20 * 100
    assert after - before < 0.2 * (meanwhile - before)


async def test_packets_just_before_a_tunnels_end_are_counted(own_proxy: Proxy) -> None:
    for closed in range(1, 4):
        async with raw_guest(own_proxy) as guest:
            await guest.echo(b"the NAT is up")  # until then frames are kept back, and lost if it ends
            await _send_denied(guest, 9)
        await until(lambda: own_proxy.metric("l2_sessions_active") == 0, "it has ended")
        await until(lambda total=9 * closed: own_proxy.metric(DENIED) == total, "all of it", 1.0)


async def test_killed_netd_counts_nothing_twice_and_loses_nothing(own_proxy: Proxy) -> None:
    async with raw_guest(own_proxy) as guest:
        await _send_denied(guest, 4)
        await until(lambda: own_proxy.metric(DENIED) == 4, "the first packets", _DELAY_S)
        killed = own_proxy.one("netd")
        own_proxy.kill(killed)
        await _send_denied(guest, 6)
        await until(lambda: own_proxy.with_role("netd") not in ([], [killed]), "netd is back")
        await until(lambda: own_proxy.metric(DENIED) == 10, "the first packets and the others", _DELAY_S)
    assert own_proxy.metric(DENIED) == 10


async def test_refused_udp_flows_are_counted(world: World, proxy_as: RunAs) -> None:
    with run_proxy(world, proxy_as, {"AERO_L2_MAX_UDP_FLOWS_PER_TUNNEL": "2"}) as proxy:
        async with raw_guest(proxy) as guest:
            for sport in range(31000, 31005):
                await guest.send(
                    IP(src=at.GUEST, dst=at.WEB) / UDP(sport=sport, dport=at.DISCARD_PORT) / b"x"
                )
            await until(lambda: proxy.metric(FLOWS_REFUSED) == 3, "three of five are refused", _DELAY_S)
        assert proxy.metric(DENIED) == 0


async def test_refused_connects_and_undeliverable_datagrams_are_counted(own_proxy: Proxy) -> None:
    nowhere = "100.1.2.3"
    own_proxy.world.host.run("ip", "route", "add", "unreachable", nowhere)
    try:
        async with raw_guest(own_proxy) as guest:
            await guest.echo(b"the NAT is up")  # what a guest sends earlier may be lost
            for address, port in ((at.WEB, _CLOSED_PORT), (at.WEB, at.HTTP_PORT), (nowhere, at.HTTP_PORT)):
                await guest.send(IP(src=at.GUEST, dst=address) / TCP(sport=30000, dport=port, flags="S"))
            for address in (at.WEB, nowhere, nowhere):
                await guest.send(IP(src=at.GUEST, dst=address) / UDP(sport=30000, dport=at.ECHO_PORT) / b"x")
            await until(lambda: own_proxy.metric(CONNECTS_FAILED) == 2, "two of three connects", _DELAY_S)
            await until(lambda: own_proxy.metric(DATAGRAMS_FAILED) == 2, "two of three datagrams", _DELAY_S)
        assert own_proxy.metric(DENIED) == 0
    finally:
        own_proxy.world.host.run("ip", "route", "del", "unreachable", nowhere)
