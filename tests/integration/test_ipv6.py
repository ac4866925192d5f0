"""IPv6 of a guest through the whole proxy: nobody answers, but that there is no router."""

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    IPv6,
)
from scapy.packet import Raw
from support import addresses as at
from support.nsguest import ns_guest
from support.proxy import Proxy
from support.rawguest import raw_guest
from support.wait import until

GATEWAY = "fe80::5055:aff:fe00:202"
SILENT = [
    IPv6(src="fe80::15", dst="ff02::1") / ICMPv6EchoRequest(),
    IPv6(src="fe80::15", dst=GATEWAY) / ICMPv6EchoRequest(),
    IPv6(src="::", dst="ff02::1:ff00:15", hlim=255) / ICMPv6ND_NS(tgt="fe80::15"),
    IPv6(src="fe80::15", dst="ff02::1:ff00:202", hlim=255) / ICMPv6ND_NS(tgt=GATEWAY),
    IPv6(src="::", dst="ff02::16", hlim=1) / ICMPv6MLReport2(),
    IPv6(src="fe80::15", dst="ff02::1:2") / UDP(sport=546, dport=547) / Raw(b"\1\0\0\7"),
    IPv6(src="2001:db8::15", dst="2606:4700:4700::1111") / TCP(sport=5, dport=80, flags="S"),
    IPv6(src="2001:db8::15", dst="2606:4700:4700::1111") / UDP(sport=5, dport=53) / Raw(b"x"),
]


async def test_nobody_answers_ipv6(proxy: Proxy) -> None:
    denied = proxy.metric("l2_policy_denied_total")
    async with raw_guest(proxy) as guest:
        await guest.echo(b"works")
        for packet in SILENT:
            for to in (at.GATEWAY_MAC, "33:33:00:00:00:01"):
                await guest.send(packet, to)
        await guest.echo(b"behind them")
        guest.drain()
        assert [packet for packet in guest.seen if IPv6 in packet] == []
    assert proxy.metric("l2_policy_denied_total") == denied, "it is no denied destination"


async def test_router_solicitation_is_told_that_there_is_no_router(proxy: Proxy) -> None:
    async with raw_guest(proxy) as guest:
        await guest.send(IPv6(src="fe80::15", dst="ff02::2", hlim=255) / ICMPv6ND_RS(), "33:33:00:00:00:02")
        answer = await guest.expect(lambda packet: packet if ICMPv6ND_RA in packet else None)
        assert (answer[ICMPv6ND_RA].routerlifetime, answer[ICMPv6ND_RA].M, answer[ICMPv6ND_RA].O) == (0, 0, 0)


@pytest.mark.slow
async def test_linux_takes_no_route_and_no_address_of_it(proxy: Proxy) -> None:
    async with proxy.tunnel() as tunnel, ns_guest(tunnel) as guest:

        def advertised() -> int:
            lines = guest.namespace.run("cat", "/proc/net/snmp6").splitlines()
            return next(int(n) for key, n in map(str.split, lines) if key == "Icmp6InRouterAdvertisements")

        guest.namespace.run("ip", "link", "set", "eth0", "down")
        guest.namespace.run("ip", "link", "set", "eth0", "up")
        await until(lambda: advertised() > 0, "the guest has asked and was told", 60)
        assert guest.namespace.run("ip", "-6", "route", "show", "default") == ""
        addresses = guest.namespace.run("ip", "-6", "-oneline", "address", "show", "dev", "eth0").splitlines()
        assert all("scope link" in line for line in addresses)
