"""IPv6 of a guest ends at the tunnel's namespace: by packets of every kind a guest may try."""

from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute
from scapy.layers.dhcp6 import DHCP6_Solicit
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptPrefixInfo,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    RouterAlert,
)
from scapy.packet import Packet, Raw
from support.segment import Segment, segment

from netns.namespace import Workshop
from netns.spec import SegmentSpec

LINK_LOCAL = "fe80::15"
GATEWAY = "fe80::5055:aff:fe00:202"
GLOBAL = "2606:4700:4700::1111"


def ip(dst: str, src: str = LINK_LOCAL, hlim: int = 64) -> Packet:
    return IPv6(src=src, dst=dst, hlim=hlim)


PACKETS: dict[str, Packet] = {
    "neighbour solicitation for the gateway": ip("ff02::1:ff00:202", hlim=255) / ICMPv6ND_NS(tgt=GATEWAY),
    "duplicate address detection": ip("ff02::1:ff00:15", "::", 255) / ICMPv6ND_NS(tgt=LINK_LOCAL),
    "neighbour advertisement": ip("ff02::1", hlim=255) / ICMPv6ND_NA(tgt=GATEWAY, R=1, O=1),
    "router solicitation": ip("ff02::2", hlim=255) / ICMPv6ND_RS(),
    "router advertisement with a prefix": ip("ff02::1", hlim=255)
    / ICMPv6ND_RA(routerlifetime=1800)
    / ICMPv6NDOptPrefixInfo(prefix="2001:db8::", prefixlen=64),
    "echo to all nodes": ip("ff02::1") / ICMPv6EchoRequest(data=b"x" * 32),
    "echo to all routers": ip("ff02::2") / ICMPv6EchoRequest(),
    "echo to the gateway": ip(GATEWAY) / ICMPv6EchoRequest(),
    "multicast listener report": ip("ff02::16", "::", 1)
    / IPv6ExtHdrHopByHop(options=[RouterAlert()])
    / ICMPv6MLReport2(),
    "DHCPv6": ip("ff02::1:2") / UDP(sport=546, dport=547) / DHCP6_Solicit(trid=7),
    "mDNS": ip("ff02::fb", hlim=255) / UDP(sport=5353, dport=5353) / Raw(b"x" * 20),
    "DNS of the gateway": ip(GATEWAY) / UDP(sport=5, dport=53) / Raw(b"x" * 20),
    "TCP to a global address": ip(GLOBAL, "2001:db8::15") / TCP(sport=5, dport=80, flags="S"),
    "UDP to a global address": ip(GLOBAL, "2001:db8::15") / UDP(sport=5, dport=53) / Raw(b"x"),
    "TCP to loopback": ip("::1") / TCP(sport=5, dport=80, flags="S"),
    "TCP to a mapped address": ip("::ffff:10.0.2.2") / TCP(sport=5, dport=53, flags="S"),
    "NAT64 to the metadata": ip("64:ff9b::a9fe:a9fe") / TCP(sport=5, dport=80, flags="S"),
    "fragment": ip(GLOBAL) / IPv6ExtHdrFragment(m=1, offset=0) / Raw(b"x" * 64),
    "routing header": ip(GATEWAY) / IPv6ExtHdrRouting(addresses=[GLOBAL]) / UDP(sport=5, dport=99),
    "unknown next header": IPv6(src=LINK_LOCAL, dst=GATEWAY, nh=253) / Raw(b"x" * 64),
}
TARGETS = ("52:55:0a:00:02:02", "33:33:00:00:00:01", "ff:ff:ff:ff:ff:ff")


@pytest.fixture(scope="module")
def lan() -> Iterator[Segment]:
    """A segment that forgets nothing between the packets."""
    with segment(SegmentSpec()) as made:
        yield made


@pytest.mark.parametrize("name", PACKETS)
def test_packet_of_ipv6_gets_no_answer_does_not_leave_and_is_not_tracked(lan: Segment, name: str) -> None:
    denied = {key: n for key, n in lan.counters().items() if key != "ipv6"}
    before = lan.counters()["ipv6"]
    for target in TARGETS:
        lan.send(PACKETS[name], target=target)
    back, left = lan.judge()
    assert (back, left) == ([], [])
    after = lan.counters()
    assert {key: n for key, n in after.items() if key != "ipv6"} == denied, "it counts as denied"
    assert after["ipv6"] - before == (0 if name == "TCP to loopback" else len(TARGETS))  # a martian
    assert flows_and_addresses(lan) == (0, set())


def test_namespace_answers_over_ipv4_after_all_of_them(lan: Segment) -> None:
    for packet in PACKETS.values():
        lan.send(packet)
    assert lan.judge() == ([], [])


def flows_and_addresses(lan: Segment) -> tuple[int, set[str]]:
    """Entries of conntrack and addresses of IPv6 in the segment's namespace."""

    def look() -> tuple[int, set[str]]:
        with open("/proc/thread-self/net/stat/nf_conntrack") as file:
            names, values, *_ = (line.split() for line in file)
        with IPRoute() as route:
            found = {str(entry.get("IFA_ADDRESS")) for entry in route.get_addr(family=10)}
        return int(dict(zip(names, values, strict=False))["entries"], 16), found

    workshop = Workshop(threads=1)
    try:
        return workshop.submit_inside(lan.interior.netns, look).result(10)
    finally:
        workshop.close()
