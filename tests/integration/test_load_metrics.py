"""What `/metrics` says under load is exactly what was sent: thousands of frames, each counted once."""

from collections.abc import AsyncIterator, Iterable, Sequence
from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import ICMP, TCP
from scapy.packet import Packet
from support import addresses as at
from support import floods
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import RawGuest, raw_guest
from support.wait import DeadlineError, until
from support.world import World

from aero_l2.config.names import KNOWN

pytestmark = pytest.mark.slow

_RATE = "AERO_L2_MAX_NEW_FLOWS_PER_SECOND"
_UDP_FLOWS = 50
"""All of them may begin at once: the queue in front of the NAT process holds a hundred packets."""
_SETTINGS = {"AERO_L2_MAX_UDP_FLOWS_PER_TUNNEL": str(_UDP_FLOWS), **({_RATE: "0"} if _RATE in KNOWN else {})}
_WEB = IPv4Address(at.WEB).packed
_NOWHERE = IPv4Address("100.1.2.3")
_DELAY_S = 10.0
_AT_ONCE = 50
_NAMES = {
    "denied": "l2_policy_denied_total",
    "flows": "l2_udp_flow_limit_exceeded_total",
    "connects": "l2_tcp_connect_fail_total",
    "datagrams": "l2_udp_send_fail_total",
    "dropped": "l2_frames_dropped_total",
}


@pytest.fixture
async def counted(world: World, proxy_as: RunAs) -> AsyncIterator[tuple[Proxy, RawGuest]]:
    """A proxy of the test's own and a guest whose NAT is up."""
    with run_proxy(world, proxy_as, _SETTINGS) as proxy:
        async with raw_guest(proxy) as guest:
            await guest.echo(b"the NAT is up")
            yield proxy, guest


async def _send(guest: RawGuest, frames: Iterable[bytes]) -> None:
    for frame in frames:
        await guest.tunnel.send(frame)
    await guest.tunnel.ping(b"all taken", timeout_s=60)


def _answer(frame: Packet) -> bool | None:
    return True if TCP in frame or ICMP in frame else None


async def _send_answered(guest: RawGuest, frames: Sequence[bytes]) -> None:
    """A few at a time, each answered by the NAT side: its queue holds a hundred and loses what is faster."""
    for start in range(0, len(frames), _AT_ONCE):
        some = frames[start : start + _AT_ONCE]
        await _send(guest, some)
        for _ in some:
            await guest.expect(_answer)


def _seen(proxy: Proxy) -> dict[str, int]:
    return {key: int(proxy.metric(name)) for key, name in _NAMES.items()}


async def _assert_counted(proxy: Proxy, **wanted: int) -> None:
    """These numbers are reached, and none of the others moves."""
    meant = dict.fromkeys(_NAMES, 0) | wanted
    try:
        await until(lambda: _seen(proxy) == meant, "the numbers", _DELAY_S)
    except DeadlineError:
        assert _seen(proxy) == meant


async def test_every_denied_packet_is_counted_once(counted: tuple[Proxy, RawGuest]) -> None:
    proxy, guest = counted
    private = [IPv4Address(f"10.{n >> 8 & 255}.{n & 255}.9").packed for n in range(10_000)]
    before = proxy.metric("l2_frames_rx_total")
    await _send(guest, (floods.datagram(to, 5000, 5000) for to in private))
    await _send_answered(guest, [floods.segment(to, 5000, 80) for to in private[:5_000]])
    await _assert_counted(proxy, denied=15_000)
    assert proxy.metric("l2_frames_rx_total") - before >= 15_000


async def test_every_datagram_beyond_the_flow_limit_is_counted_once(counted: tuple[Proxy, RawGuest]) -> None:
    """One flow is the echo that said that the NAT is up."""
    proxy, guest = counted
    await _send(guest, (floods.datagram(_WEB, source, at.ECHO_PORT) for source in range(10_000, 13_000)))
    await _assert_counted(proxy, flows=3_000 - (_UDP_FLOWS - 1))


async def test_every_refused_connect_is_counted_once(counted: tuple[Proxy, RawGuest]) -> None:
    proxy, guest = counted
    await _send_answered(guest, [floods.segment(_WEB, 5000, port) for port in range(20_000, 21_000)])
    await _assert_counted(proxy, connects=1_000)


async def test_every_undeliverable_datagram_is_counted_once(counted: tuple[Proxy, RawGuest]) -> None:
    proxy, guest = counted
    proxy.world.host.run("ip", "route", "add", "unreachable", str(_NOWHERE))
    try:
        await _send_answered(guest, [floods.datagram(_NOWHERE.packed, 5000, 7)] * 1_000)
        await _assert_counted(proxy, datagrams=1_000)
    finally:
        proxy.world.host.run("ip", "route", "del", "unreachable", str(_NOWHERE))
