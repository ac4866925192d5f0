"""Closed connections that a guest opens again, and connections closed here alone: limits hold, by packets."""

import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network

import pytest
from scapy.layers.inet import IP, TCP
from scapy.packet import Packet
from support.segment import Segment, segment

from netns.spec import GUEST, NAT_CLIENT, SegmentSpec

PUBLIC = "93.184.216.34"
LIMIT = 4
SPEC = SegmentSpec(
    special=(IPv4Network("10.0.0.0/8"),), max_tcp_flows=LIMIT, max_udp_flows=0, max_new_flows_per_s=0
)
SEQ, THEIRS = 1000, 5000
LATER = 1_000_000
"""As far on as the sequence numbers of the connection that comes after are."""


def tcp(sport: int, flags: str, seq: int, ack: int = 0, ttl: int = 64) -> Packet:
    return IP(src=str(GUEST), dst=PUBLIC, ttl=ttl) / TCP(
        sport=sport, dport=80, flags=flags, seq=seq, ack=ack, window=60000
    )


def answer(lan: Segment, sport: int, flags: str, seq: int, ack: int) -> None:
    lan.send_from_nat(
        IP(src=PUBLIC, dst=str(NAT_CLIENT))
        / TCP(sport=80, dport=sport, flags=flags, seq=seq, ack=ack, window=60000)
    )


def opens(lan: Segment, sport: int, later: int = 0) -> bool:
    """Whether the guest's SYN gets out; the other side then takes the connection."""
    _, left = lan.judge(tcp(sport, "S", SEQ + later))
    if not any(TCP in packet and packet[TCP].flags == "S" for packet in left):
        return False
    answer(lan, sport, "SA", THEIRS + later, SEQ + later + 1)
    lan.judge(tcp(sport, "A", SEQ + later + 1, THEIRS + later + 1))
    return True


def close_by_server(lan: Segment, sport: int, later: int = 0) -> None:
    answer(lan, sport, "R", THEIRS + later + 1, 0)
    lan.judge()


def close_and_acknowledge(lan: Segment, sport: int) -> None:
    lan.judge(tcp(sport, "R", SEQ + 1), tcp(sport, "A", SEQ + 1, THEIRS + 1))


def close_and_be_acknowledged(lan: Segment, sport: int) -> None:
    lan.judge(tcp(sport, "R", SEQ + 1))
    answer(lan, sport, "A", THEIRS + 1, SEQ + 1)
    lan.judge()


@pytest.mark.parametrize("close", [close_by_server, close_and_acknowledge, close_and_be_acknowledged])
def test_closed_connection_is_not_opened_again_past_the_limit(close: Callable[[Segment, int], None]) -> None:
    """`ct count` lets go of a closed connection when the next one begins; its entry is there for a second."""
    with segment(SPEC) as lan:
        reopened = []
        for sport in range(1, 3 * LIMIT):
            assert opens(lan, sport)
            if opens(lan, sport - 1, LATER):
                reopened.append(sport - 1)
            close(lan, sport)
        assert len(reopened) <= 1  # a first one nobody has closed
        assert lan.counters()["invalid"] >= LIMIT


def test_closed_connection_opened_again_counts_as_a_new_flow() -> None:
    with segment(replace(SPEC, max_tcp_flows=0, max_new_flows_per_s=1)) as lan:
        begun, opened = time.monotonic(), 0
        for number in range(40):
            if opens(lan, 1, LATER * number):
                opened += 1
                close_by_server(lan, 1, LATER * number)
        assert 1 <= opened <= 3 + time.monotonic() - begun


def test_reset_that_does_not_get_out_closes_nothing_here() -> None:
    with segment(SPEC) as lan:
        for sport in range(1, 1 + LIMIT):
            assert opens(lan, sport)
            _, left = lan.judge(tcp(sport, "RA", SEQ + 1, THEIRS + 1, ttl=1))
            assert left == []
        assert not opens(lan, 1 + LIMIT)
        assert lan.counters()["limit_tcp"] == 1


def test_hops_of_a_connects_route_are_still_told() -> None:
    """What TCP traceroute does."""
    with segment(SPEC) as lan:
        back, _ = lan.judge(tcp(1, "S", SEQ, ttl=1))
        assert [packet[IP].src for packet in back] == ["10.0.2.2"]
