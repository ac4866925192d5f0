"""What a guest reaches and what it must not, tried by sending the packets and watching the targets."""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_LSRR
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP
from scapy.packet import Packet, Raw
from support import addresses as at
from support.proxy import Proxy
from support.rawguest import BROADCAST, RawGuest, raw_guest
from support.sniff import Sniffer, sniffer
from support.world import World

DENIED = {
    "host-loopback": at.LOOPBACK,
    "host-loopback-elsewhere": "127.9.9.9",
    "host-public": at.HOST_PUBLIC,
    "host-private": at.HOST_PRIVATE,
    "other-namespace": at.OTHER,
    "nat": at.NAT,
    "nat-dns": at.NAT_DNS,
    "nat-side": at.NAT_SIDE,
    "operators-network": at.PRIVATE_SITE,
    "cloud-metadata": at.METADATA,
}
SPOOFED = ("10.0.2.77", "10.0.2.2", "10.0.3.100", "10.0.3.2", "127.0.0.1", "0.0.0.0", at.WEB, at.HOST_PRIVATE)


@dataclass(frozen=True)
class Watch:
    """What every namespace of the world saw, for saying that it did not see something."""

    sniffers: list[Sniffer]
    tunnel_port: int

    def assert_unseen(self, marker: bytes) -> None:
        """No frame carried the marker, but for the tunnels' WebSockets themselves."""
        seen = [
            frame for sniff in self.sniffers for frame in sniff.containing(marker, but_port=self.tunnel_port)
        ]
        assert [frame.hex() for frame in seen] == []

    def assert_silent(self, port: int) -> None:
        """No TCP or UDP packet went to the port."""
        assert [packet.summary() for sniff in self.sniffers for packet in sniff.to_port(port)] == []


@pytest.fixture
def watched(world: World, proxy: Proxy) -> Iterator[Watch]:
    """Sniffers in every namespace of the world, but for the tunnels' own connections."""
    with ExitStack() as stack:
        yield Watch(
            [stack.enter_context(sniffer(w)) for w in (world.host, world.internet, world.other)], proxy.port
        )


def _marker() -> bytes:
    return f"marker-{uuid.uuid4()}".encode()


@pytest.mark.parametrize("target", DENIED.values(), ids=DENIED)
async def test_denied_tcp_connect_is_reset(proxy: Proxy, watched: Watch, target: str) -> None:
    async with raw_guest(proxy) as guest:
        assert await guest.try_tcp(target, at.SERVICE_PORT) == "reset"
        await guest.echo(b"after the refusal")
    watched.assert_silent(at.SERVICE_PORT)


@pytest.mark.parametrize("target", DENIED.values(), ids=DENIED)
async def test_denied_datagram_is_prohibited(proxy: Proxy, watched: Watch, target: str) -> None:
    marker = _marker()
    async with raw_guest(proxy) as guest:
        assert await guest.try_udp(target, at.SERVICE_PORT, marker) == "prohibited"
        await guest.echo(b"after the refusal")
    watched.assert_unseen(marker)
    watched.assert_silent(at.SERVICE_PORT)


@pytest.mark.parametrize("target", DENIED.values(), ids=DENIED)
async def test_denied_ping_is_prohibited(proxy: Proxy, watched: Watch, target: str) -> None:
    marker = _marker()
    async with raw_guest(proxy) as guest:
        assert await guest.try_icmp(target, marker) == "prohibited"
        await guest.echo(b"after the refusal")
    watched.assert_unseen(marker)


@pytest.mark.parametrize(
    "target",
    ["255.255.255.255", "10.0.2.255", "10.0.3.255", "224.0.0.1", "239.255.255.250", "192.168.77.255"],
)
async def test_broadcast_and_multicast_stay_in_the_tunnel(proxy: Proxy, watched: Watch, target: str) -> None:
    marker = _marker()
    async with raw_guest(proxy) as guest:
        await guest.echo(b"the NAT is up")  # else nothing would get through, whatever the rules
        for destination in (BROADCAST, at.GATEWAY_MAC):
            await guest.send(
                IP(src=at.GUEST, dst=target) / UDP(sport=1, dport=at.SERVICE_PORT) / Raw(marker), destination
            )
        await guest.echo(b"after the broadcast")
    watched.assert_unseen(marker)


@pytest.mark.parametrize("source", SPOOFED)
async def test_guest_cannot_send_under_another_address(proxy: Proxy, watched: Watch, source: str) -> None:
    marker = _marker()
    async with raw_guest(proxy) as guest:
        await guest.echo(b"the NAT is up")  # else nothing would get through, whatever the rules
        for target in (at.WEB, at.HOST_PUBLIC, at.LOOPBACK, at.OTHER):
            await guest.send(IP(src=source, dst=target) / UDP(sport=7777, dport=at.ECHO_PORT) / Raw(marker))
            await guest.send(IP(src=source, dst=target) / TCP(sport=7777, dport=at.SERVICE_PORT, flags="S"))
            await guest.send(IP(src=source, dst=target) / ICMP(id=7, seq=1) / Raw(marker))
        await guest.echo(b"under its own address")
    watched.assert_unseen(marker)
    watched.assert_silent(at.SERVICE_PORT)


async def test_source_route_does_not_lead_to_the_host(proxy: Proxy, watched: Watch) -> None:
    marker = _marker()
    async with raw_guest(proxy) as guest:
        await guest.echo(b"the NAT is up")  # else nothing would get through, whatever the rules
        for first in (at.GATEWAY, at.WEB):
            header = IP(
                src=at.GUEST, dst=first, options=[IPOption_LSRR(routers=[at.LOOPBACK])]
            )  # RFC 791 §3.1
            await guest.send(header / UDP(sport=1, dport=at.SERVICE_PORT) / Raw(marker))
        await guest.echo(b"after the route")
    watched.assert_unseen(marker)


async def test_gateway_offers_nothing_but_its_services(proxy: Proxy) -> None:
    async with raw_guest(proxy) as guest:
        for port in (22, 67, 80, at.SERVICE_PORT, proxy.port):
            assert await guest.try_tcp(at.GATEWAY, port) == "reset"
        assert await guest.try_udp(at.GATEWAY, at.SERVICE_PORT) in ("prohibited", "unreachable")
        assert await guest.ping(at.GATEWAY)
        assert (await guest.resolve("web.example.test")).an[0].rdata == at.WEB


def _everything_a_guest_may_shout(guest: RawGuest, other_mac: str, marker: bytes) -> list[tuple[Packet, str]]:
    datagram = UDP(sport=1, dport=2) / Raw(marker)
    claim = ARP(op=2, hwsrc=guest.mac, psrc=at.GUEST, hwdst=other_mac, pdst=at.GUEST)
    question = ARP(op=1, hwsrc=guest.mac, psrc=at.GUEST, pdst=at.GUEST)
    return [
        *((packet, to) for packet in (claim, question) for to in (BROADCAST, other_mac, at.GATEWAY_MAC)),
        *((IP(src=at.GUEST, dst=at.GUEST) / datagram, to) for to in (BROADCAST, other_mac, at.GATEWAY_MAC)),
        (IP(src="10.0.2.16", dst=at.GUEST) / datagram, at.GATEWAY_MAC),
        (IP(src=at.GUEST, dst="10.0.2.255") / datagram, BROADCAST),
        (IPv6(src="fe80::1", dst="ff02::1") / ICMPv6EchoRequest(data=marker), "33:33:00:00:00:01"),
    ]


async def test_two_tunnels_never_see_each_others_frames(proxy: Proxy) -> None:
    marker = _marker()
    async with raw_guest(proxy, "02:00:00:00:00:aa") as one, raw_guest(proxy, "02:00:00:00:00:bb") as two:
        await asyncio.gather(one.dhcp(), two.dhcp())
        for packet, to in _everything_a_guest_may_shout(one, two.mac, marker):
            await one.send(packet, to)
        await one.tunnel.ping(b"all of it was taken")
        await asyncio.gather(one.echo(b"one"), two.echo(b"two"))
        received = two.drain()
    strangers = [
        frame.hex() for frame in received if marker in frame or bytes.fromhex("0200000000aa") in frame
    ]
    assert strangers == []


async def test_two_tunnels_with_the_same_addresses_and_ports_keep_their_own_answers(proxy: Proxy) -> None:
    async with raw_guest(proxy) as one, raw_guest(proxy) as two:
        for turn in range(20):
            mine, yours = f"one {turn}".encode(), f"two {turn}".encode()
            answers = await asyncio.gather(
                one.udp(at.WEB, at.ECHO_PORT, mine, sport=5000),
                two.udp(at.WEB, at.ECHO_PORT, yours, sport=5000),
            )
            assert list(answers) == [mine, yours]


async def test_guest_reaches_the_internet(proxy: Proxy) -> None:
    async with raw_guest(proxy) as guest:
        lease = await guest.dhcp()
        assert (lease["address"], lease["router"], lease["lease_time"]) == (at.GUEST, at.GATEWAY, 86400)
        assert await guest.arp(at.GATEWAY) == at.GATEWAY_MAC
        assert await guest.ping(at.GATEWAY)
        assert await guest.try_tcp(at.WEB, at.ECHO_PORT) == "answered"
        await guest.echo(b"over UDP")
