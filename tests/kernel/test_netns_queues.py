"""Packets that nobody took off a tunnel's interfaces in time are counted, each once."""

import os
import select

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from support.segment import GUEST_MAC, Segment, segment

from netns import queues, shaping
from netns.segments import Segment as KeptSegment
from netns.spec import GATEWAY_MAC, GUEST, SegmentSpec

PUBLIC = "93.184.216.34"
SENT = 2000


def lost(lan: Segment) -> int:
    counters = KeptSegment(lan.interior).counters()
    assert not any(counters[name] for name in shaping.COUNTERS.values())
    return sum(counters[name] for name in queues.COUNTERS.values())


def waiting(fd: int) -> int:
    """Datagrams that are read until nothing comes any more; each is of one size."""
    count = 0
    while select.select([fd], [], [], 0.5)[0]:
        count += UDP in Ether(os.read(fd, 2048))
    return count


def test_packets_that_the_nat_process_does_not_take_are_counted() -> None:
    with segment(SegmentSpec()) as lan:
        before = lost(lan)
        packet = IP(src=str(GUEST), dst=PUBLIC) / UDP(sport=4000, dport=99) / Raw(b"x")
        frame = bytes(Ether(src=GUEST_MAC, dst=GATEWAY_MAC) / packet)
        for _ in range(SENT):
            os.write(lan.interior.tap, frame)
        kept = waiting(lan.nat)
        assert 0 < kept < SENT
        assert lost(lan) - before == SENT - kept


def test_packets_that_the_guest_does_not_take_are_counted() -> None:
    with segment(SegmentSpec()) as lan:
        asked = IP(src=str(GUEST), dst=PUBLIC) / UDP(sport=4000, dport=99) / Raw(b"begin")
        _, (begun, *_) = lan.judge(asked, leaving=1)
        before = lost(lan)
        answer = IP(src=PUBLIC, dst="10.0.3.100") / UDP(sport=99, dport=begun[UDP].sport) / Raw(b"x")
        frame = bytes(Ether(src="52:55:0a:00:03:02", dst=lan.nat_mac) / answer)
        for _ in range(SENT):
            os.write(lan.nat, frame)
        kept = waiting(lan.interior.tap)
        assert 0 < kept < SENT
        assert lost(lan) - before == SENT - kept


@pytest.mark.parametrize("attributes", [{}, {23: b"short"}, {7: b""}, {1: b"tbf\0", 7: b"\x04\0\3\0"}])
def test_answer_that_says_nothing_is_an_error_and_no_crash(attributes: dict[int, bytes]) -> None:
    """netd survives an OSError: that tunnel is not counted this time."""
    for read in (queues._tx_dropped, queues._queueing_discipline):
        with pytest.raises(OSError, match="no statistics"):
            read(attributes)
