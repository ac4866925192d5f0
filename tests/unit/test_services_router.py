"""What a guest that asks for an IPv6 router is told, read by scapy."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from aero_l2.services.router import IPV6_MULTICAST, NoRouter, advertisement, is_solicitation

MAC = "02:00:00:00:00:15"


def frame(packet: Packet, to: str = "33:33:00:00:00:02") -> bytes:
    return bytes(Ether(src=MAC, dst=to) / packet)


SOLICITATION = frame(
    IPv6(src="fe80::15", dst="ff02::2", hlim=255) / ICMPv6ND_RS() / ICMPv6NDOptSrcLLAddr(lladdr=MAC)
)


def test_advertisement_says_no_router_no_address_no_dhcp() -> None:
    packet = Ether(advertisement())
    assert (packet.dst, packet.src) == ("33:33:00:00:00:01", "52:55:0a:00:02:02")
    ip, message = packet[IPv6], packet[ICMPv6ND_RA]
    assert (ip.src, ip.dst, ip.hlim) == ("fe80::5055:aff:fe00:202", "ff02::1", 255)
    assert (message.routerlifetime, message.M, message.O, message.chlim) == (0, 0, 0, 0)
    assert len(message.payload) == 0, "an option would give the guest something of IPv6"
    del packet[ICMPv6ND_RA].cksum
    assert bytes(packet) == advertisement(), "scapy computes another checksum"


@pytest.mark.parametrize("source", ["fe80::15", "::"])
def test_solicitation_is_answered(source: str) -> None:
    asked = frame(IPv6(src=source, dst="ff02::2", hlim=255) / ICMPv6ND_RS())
    assert asked[0] == IPV6_MULTICAST
    assert NoRouter(0.0).answer(asked, 0.0) == advertisement()


OTHERS: dict[str, Packet] = {
    "forwarded from afar": IPv6(src="fe80::15", dst="ff02::2", hlim=254) / ICMPv6ND_RS(),
    "code is not 0": IPv6(src="fe80::15", dst="ff02::2", hlim=255) / ICMPv6ND_RS(code=1),
    "echo": IPv6(src="fe80::15", dst="ff02::1", hlim=255) / ICMPv6EchoRequest(),
    "neighbour": IPv6(src="fe80::15", dst="ff02::1:ff00:202", hlim=255) / ICMPv6ND_NS(tgt="fe80::1"),
    "advertisement": IPv6(src="fe80::15", dst="ff02::1", hlim=255) / ICMPv6ND_RA(),
    "UDP": IPv6(src="fe80::15", dst="ff02::2", hlim=255) / UDP(),
    "IPv4": IP(dst="224.0.0.2") / UDP(),
}


@pytest.mark.parametrize("name", OTHERS)
def test_nothing_else_is_answered(name: str) -> None:
    assert NoRouter(0.0).answer(frame(OTHERS[name]), 0.0) is None


@given(st.one_of(st.binary(max_size=100), st.binary(max_size=60).map(lambda tail: SOLICITATION[:40] + tail)))
def test_no_bytes_are_too_odd(data: bytes) -> None:
    assert is_solicitation(data) in (True, False)


@given(st.integers(0, len(SOLICITATION)))
def test_cut_solicitation_is_none(length: int) -> None:
    assert is_solicitation(SOLICITATION[:length]) == (length >= 62)


def test_flood_of_solicitations_gets_few_answers() -> None:
    guest = NoRouter(0.0)

    def answers(count: int, now: float) -> list[Any]:
        return [found for found in (guest.answer(SOLICITATION, now) for _ in range(count)) if found]

    assert len(answers(1000, 0.0)) == 8
    assert len(answers(1000, 2.0)) == 2
