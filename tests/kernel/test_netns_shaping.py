"""The limit of bytes a second, by frames through a tunnel's namespace: what passes when, and what is lost."""

import os
import select
import time
from collections.abc import Callable, Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw
from support.segment import GUEST_MAC, Segment, segment

from netns import shaping
from netns.errors import SegmentError
from netns.namespace import Workshop
from netns.segments import Segment as KeptSegment
from netns.spec import GATEWAY, GATEWAY_MAC, GUEST, SegmentSpec

PUBLIC = "93.184.216.34"
RATE = 400_000
BURST = 65_536
SPEC = SegmentSpec(max_bytes_per_second=RATE, bytes_burst=BURST)
DATA = 1400
FRAME = DATA + 28 + 14


@pytest.fixture
def lan() -> Iterator[Segment]:
    """A segment with the limit."""
    with segment(SPEC) as made:
        yield made


def datagram(data: int = DATA, sport: int = 4000) -> bytes:
    packet = IP(src=str(GUEST), dst=PUBLIC) / UDP(sport=sport, dport=99) / Raw(b"x" * data)
    return bytes(Ether(src=GUEST_MAC, dst=GATEWAY_MAC) / packet)


def read(fd: int, until: float) -> list[tuple[float, bytes]]:
    """Frames of a TAP with their times, until nothing came for half a second."""
    frames = []
    while (left := until - time.monotonic()) > 0 and select.select([fd], [], [], min(0.5, left))[0]:
        frames.append((time.monotonic(), os.read(fd, 70_000)))
    return frames


def rate_of(frames: list[tuple[float, bytes]]) -> float:
    """Bytes a second behind the burst."""
    sizes = [len(frame) for _, frame in frames]
    first = next(n for n in range(len(frames)) if sum(sizes[: n + 1]) > 2 * BURST)
    return sum(sizes[first + 1 :]) / (frames[-1][0] - frames[first][0])


def answers(lan: Segment) -> bytes:
    """A frame of the NAT side that belongs to a flow which the guest has begun."""
    lan.send(IP(src=str(GUEST), dst=PUBLIC) / UDP(sport=4000, dport=99) / Raw(b"begin"))
    (_, begun), *_ = [entry for entry in read(lan.nat, time.monotonic() + 10) if UDP in Ether(entry[1])]
    packet = IP(src=PUBLIC, dst="10.0.3.100") / UDP(sport=99, dport=Ether(begun)[UDP].sport) / (b"x" * DATA)
    return bytes(Ether(src="52:55:0a:00:03:02", dst=lan.nat_mac) / packet)


def big(frames: list[tuple[float, bytes]]) -> list[tuple[float, bytes]]:
    return [entry for entry in frames if len(entry[1]) == FRAME]


def kept(lan: Segment) -> KeptSegment:
    """The segment as netd has it."""
    return KeptSegment(lan.interior)


def lost(segment: KeptSegment) -> int:
    """What the limit has dropped, both ways."""
    counters = segment.counters()
    return sum(counters[name] for name in shaping.COUNTERS.values())


def test_upstream_passes_the_burst_and_then_the_rate_and_the_rest_is_lost_and_counted(lan: Segment) -> None:
    frame, sent = datagram(), 1000
    for _ in range(sent):
        os.write(lan.interior.tap, frame)
    frames = big(read(lan.nat, time.monotonic() + 20))
    assert 0.8 * RATE < rate_of(frames) < 1.1 * RATE
    assert shaping.QUEUE_PACKETS <= len(frames) < sent
    assert lost(kept(lan)) == sent - len(frames)


def test_downstream_passes_the_burst_and_then_the_rate_and_the_rest_is_lost_and_counted(lan: Segment) -> None:
    answer, sent = answers(lan), 1000
    for _ in range(sent):
        os.write(lan.nat, answer)
    frames = big(read(lan.interior.tap, time.monotonic() + 20))
    assert 0.8 * RATE < rate_of(frames) < 1.1 * RATE
    assert shaping.QUEUE_PACKETS <= len(frames) < sent
    assert lost(kept(lan)) == sent - len(frames)


@pytest.mark.slow
def test_directions_do_not_share_a_limit(lan: Segment) -> None:
    answer, question = answers(lan), datagram()
    for _ in range(150):
        os.write(lan.nat, answer)
        os.write(lan.interior.tap, question)
    both = [big(read(fd, time.monotonic() + 20)) for fd in (lan.interior.tap, lan.nat)]
    assert [len(frames) for frames in both] == [150, 150]
    assert lost(kept(lan)) == 0


def test_gateway_answers_ahead_of_what_waits(lan: Segment) -> None:
    """DNS, DHCP and refusals are not starved by the guest's own downloads."""
    answer = answers(lan)
    for _ in range(200):
        os.write(lan.nat, answer)
    time.sleep(0.1)
    lan.send(IP(src=str(GUEST), dst=str(GATEWAY)) / ICMP(id=7, seq=7))
    lan.send(ARP(op=1, hwsrc=GUEST_MAC, psrc=str(GUEST), pdst=str(GATEWAY)), target="ff:ff:ff:ff:ff:ff")
    frames = [Ether(frame) for _, frame in read(lan.interior.tap, time.monotonic() + 20)]
    for kind in (ICMP, ARP):
        at = next(n for n, frame in enumerate(frames) if kind in frame)
        assert len(frames) - at > 50, kind


def test_flow_of_small_packets_goes_ahead_of_what_waits(lan: Segment) -> None:
    small, large = datagram(20, sport=5000), datagram()
    for frame in (small, *[large] * 200, small):
        os.write(lan.interior.tap, frame)
    sizes = [len(frame) for _, frame in read(lan.nat, time.monotonic() + 20)]
    last = max(n for n, size in enumerate(sizes) if size == 62)
    assert len(sizes) - last > 50


@pytest.mark.parametrize("size", [30_000, 65_520])
def test_large_packet_passes(lan: Segment, size: int) -> None:
    """As coalesced TCP segments are."""

    def segment_of(packet: Packet, data: int = 0) -> bytes:
        return bytes(Ether(src=GUEST_MAC, dst=GATEWAY_MAC) / packet / Raw(b"x" * data))

    ip = IP(src=str(GUEST), dst=PUBLIC)
    os.write(lan.interior.tap, segment_of(ip / TCP(sport=5, dport=80, flags="S", seq=9)))
    (_, syn), *_ = read(lan.nat, time.monotonic() + 10)
    reply = TCP(sport=80, dport=Ether(syn)[TCP].sport, flags="SA", seq=99, ack=10, window=65535)
    lan.send_from_nat(IP(src=PUBLIC, dst="10.0.3.100") / reply)
    for n in range(2):
        part = TCP(sport=5, dport=80, flags="A", seq=10 + n * (size - 40), ack=100, window=65535)
        os.write(lan.interior.tap, segment_of(ip / part, size - 40))
    sizes = [len(frame) for _, frame in read(lan.nat, time.monotonic() + 20)]
    assert [n for n in sizes if n > 1000] == [size + 14] * 2


def test_without_limit_nothing_is_set() -> None:
    with segment(SegmentSpec()) as lan:
        assert lost(kept(lan)) == 0
    assert shaping.render(0, BURST) == ""


def test_netd_that_took_a_tunnel_over_reads_on(lan: Segment) -> None:
    frame = datagram()
    for _ in range(1000):
        os.write(lan.interior.tap, frame)
    before = lost(kept(lan))
    adopted = kept(lan)
    for name in ("netlink", "route"):
        os.close(getattr(adopted.interior, name))
    inside(lan, lambda: adopted.adopt(frozenset()))
    assert lost(adopted) == before > 0


def test_kernel_without_the_queue_is_an_error_that_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is asked for a queue that it does not have: there is no tunnel without its limit."""
    monkeypatch.setattr(shaping, "KIND", "tbf_of_another_kernel")
    with pytest.raises(SegmentError) as refusal, segment(SPEC):
        pass
    assert "AERO_L2_MAX_BYTES_PER_SECOND" in str(refusal.value)
    assert "modprobe sch_tbf" in str(refusal.value)


def inside(lan: Segment, job: Callable[[], None]) -> None:
    """Run ``job`` in the segment's namespace."""
    workshop = Workshop(threads=1)
    try:
        workshop.submit_inside(lan.interior.netns, job).result(10)
    finally:
        workshop.close()
