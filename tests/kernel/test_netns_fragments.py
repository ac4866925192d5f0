"""Fragments of a guest: policy judges the whole packet, and what never becomes whole costs little memory."""

import os
import re
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from support.segment import GUEST_MAC, Segment, segment

from netns.namespace import Workshop
from netns.ruleset import FRAGMENTS_PER_SECOND
from netns.spec import GATEWAY, GATEWAY_MAC, GUEST, SegmentSpec

PUBLIC = "93.184.216.34"
DENYING = SegmentSpec(denied_tcp_ports=((25, 25),), denied_udp_ports=((1900, 1900),))
HIGH_THRESHOLD = 4 << 20
"""Default of net.ipv4.ipfrag_high_thresh, which every namespace has for itself; ip-sysctl.rst."""
_T = TypeVar("_T")


@pytest.fixture
def lan() -> Iterator[Segment]:
    """A segment that denies a port of each protocol."""
    with segment(DENYING) as made:
        yield made


def tiny(packet: Packet, first: int = 8) -> list[Packet]:
    """The packet in two parts, the first with so few bytes that it does not hold a whole header."""
    whole = IP(bytes(packet))
    data = bytes(whole.payload)
    head = {"src": whole.src, "dst": whole.dst, "proto": whole.proto, "id": 77}
    return [IP(**head, flags="MF") / Raw(data[:first]), IP(**head, frag=first // 8) / Raw(data[first:])]


def ip(dst: str = PUBLIC) -> Packet:
    return IP(src=str(GUEST), dst=dst)


HIDDEN = {
    "TCP, flags in the second fragment": (ip() / TCP(sport=5, dport=25, flags="S"), "denied_port"),
    "UDP": (ip() / UDP(sport=5, dport=1900) / Raw(b"x" * 64), "denied_port"),
    "NAT process": (ip("10.0.3.2") / UDP(sport=5, dport=99) / Raw(b"x" * 64), "denied_nat"),
    "no SYN": (ip() / TCP(sport=5, dport=80, flags="A") / Raw(b"x" * 64), "denied_stray"),
}


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("order", ["first fragment first", "first fragment last"])
def test_what_fragments_hide_is_refused(lan: Segment, name: str, order: str) -> None:
    packet, counter = HIDDEN[name]
    parts = tiny(packet)
    back, left = lan.judge(*(parts if order == "first fragment first" else reversed(parts)))
    assert left == []
    assert lan.counters()[counter] == 1
    assert len(back) == 1, "refused like a whole packet"


def test_tiny_fragments_of_what_is_allowed_pass(lan: Segment) -> None:
    """Judged as a whole; the kernel sends them on in parts as small as they came."""
    packet = ip() / TCP(sport=5, dport=80, flags="S")
    _, left = lan.judge(*tiny(packet), leaving=2)
    assert TCP(whole(left)).dport == 80


OVERLAPS = {
    "header again, another port": (0, b"", True),
    "header again and more": (0, b"y" * 32, False),
    "data behind the header": (1, b"y" * 32, False),
}


@pytest.mark.parametrize("name", OVERLAPS)
def test_overlapping_fragments_never_replace_what_was_judged(lan: Segment, name: str) -> None:
    """A part within another is ignored, one that goes beyond it ends the packet (as in RFC 5722)."""
    start, more, passes = OVERLAPS[name]
    data = bytes(UDP(sport=5, dport=80, len=72, chksum=0)) + b"x" * 64
    other = (bytes(UDP(sport=5, dport=1900, len=72, chksum=0)) if start == 0 else b"") + more
    head = {"src": str(GUEST), "dst": PUBLIC, "proto": 17, "id": 100}
    back, left = lan.judge(
        IP(**head, flags="MF") / Raw(data[:24]),
        IP(**head, flags="MF", frag=start) / Raw(other),
        IP(**head, frag=3) / Raw(data[24:]),
    )
    assert back == []
    assert whole(left)[2:] == (data[2:] if passes else b"")
    assert lan.counters()["denied_port"] == 0


@pytest.mark.parametrize("size", [2000, 8192, 65_000])
def test_large_datagrams_pass_both_ways(lan: Segment, size: int) -> None:
    """As NFS and DNS with a large buffer send them."""
    data = os.urandom(size)
    _, left = lan.judge(*fragment(ip() / UDP(sport=5, dport=2049) / Raw(data), fragsize=1480), leaving=1)
    assert whole(left)[8:] == data
    answer = IP(src=PUBLIC, dst="10.0.3.100", id=9) / UDP(
        sport=2049, dport=UDP(bytes(left[0][IP].payload)).sport
    )
    for part in fragment(answer / Raw(data), fragsize=1480):
        lan.send_from_nat(part)
    back, _ = lan.judge()
    assert whole(back)[8:] == data
    assert all(len(p) <= 1514 for p in back)


def whole(parts: list[Packet]) -> bytes:
    """The payload of the one IP packet that the frames hold."""
    data = {p[IP].frag * 8: bytes(p[IP].payload) for p in parts}
    return b"".join(data[at] for at in sorted(data))


def test_fragments_that_never_become_whole_cost_bounded_memory_and_harm_no_other_packet(lan: Segment) -> None:
    """As fast as the TAP takes them; each begins another datagram."""
    packets = [bytes(Ether(src=GUEST_MAC, dst=GATEWAY_MAC) / part) for part in unfinished(2000)]
    most, began = 0, time.monotonic()
    for number, packet in enumerate(packets):
        os.write(lan.interior.tap, packet)
        if number % 200 == 0:
            most = max(most, memory(lan))
    spent = time.monotonic() - began
    most = max(most, memory(lan))
    passed = (3 + spent) * FRAGMENTS_PER_SECOND  # the burst, the rate, and slack of a second
    assert 0 < most <= min(HIGH_THRESHOLD + (1 << 17), passed * 4096)
    assert lan.counters()["limit_fragments"] >= 2000 - passed
    ping = ip(str(GATEWAY)) / ICMP(id=3, seq=3)
    assert lan.judge(ping)[1] == []


def unfinished(count: int) -> list[Packet]:
    return [
        IP(src=str(GUEST), dst=PUBLIC, id=n, proto=17, flags="MF") / Raw(b"x" * 1480) for n in range(count)
    ]


def memory(lan: Segment) -> int:
    """Bytes that the namespace keeps for fragments: proc(5), /proc/net/sockstat."""

    def look() -> int:
        with open("/proc/thread-self/net/sockstat") as file:
            found = re.search(r"^FRAG: inuse \d+ memory (\d+)$", file.read(), re.MULTILINE)
        assert found is not None
        return int(found[1])

    return inside(lan, look)


def inside(lan: Segment, job: Callable[[], _T]) -> _T:
    """Run ``job`` in the segment's namespace."""
    workshop = Workshop(threads=1)
    try:
        return workshop.submit_inside(lan.interior.netns, job).result(10)
    finally:
        workshop.close()
