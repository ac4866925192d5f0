"""Answers from another port than the one that was asked: who gets in, who does not, and what it costs."""

import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Packet
from support.segment import Segment, segment
from support.wait import wait_until

from netns.spec import GUEST, Forward, SegmentSpec

SERVER = "93.184.216.34"
OTHER = "93.184.216.35"
TFTP = 69
SPEC = SegmentSpec(denied_udp_ports=((1900, 1901),), max_udp_flows=4)


@pytest.fixture
def lan() -> Iterator[Segment]:
    with segment(SPEC) as made:
        yield made


def asked(port: int = TFTP, sport: int = 2000, to: str = SERVER) -> Packet:
    return IP(src=str(GUEST), dst=to) / UDP(sport=sport, dport=port) / b"question"


def answer(lan: Segment, sport: int, dport: int = 2000, source: str = SERVER) -> list[Packet]:
    """Send it from the NAT's side; what the guest got."""
    lan.send_from_nat(IP(src=source, dst="10.0.3.100") / UDP(sport=sport, dport=dport) / b"answer")
    return lan.judge()[0]


def seen(packets: list[Packet]) -> list[tuple[str, int, str, int, bytes]]:
    return [(p[IP].src, p[UDP].sport, p[IP].dst, p[UDP].dport, bytes(p[UDP].payload)) for p in packets]


def test_answer_from_another_port_reaches_the_guest_and_it_may_answer_there(lan: Segment) -> None:
    lan.judge(asked(), leaving=1)
    for _ in range(2):
        assert seen(answer(lan, 40001)) == [(SERVER, 40001, str(GUEST), 2000, b"answer")]
    for _ in range(2):
        _, left = lan.judge(asked(40001), leaving=1)
        assert seen(left) == [("10.0.3.100", 2000, SERVER, 40001, b"question")]
    assert {name for name, packets in lan.counters().items() if packets} == set()


def test_nothing_comes_from_an_address_or_to_a_port_that_did_not_ask(lan: Segment) -> None:
    lan.judge(asked(), leaving=1)
    lan.judge(asked(sport=2001, to=OTHER), leaving=1)
    assert answer(lan, 40001, source=OTHER) == []
    assert answer(lan, 40001, dport=2001) == []
    assert answer(lan, 40001, dport=2002) == []


def test_what_was_refused_has_asked_nobody(lan: Segment) -> None:
    lan.judge(asked(1900))
    assert answer(lan, 40001) == []


@pytest.mark.parametrize(
    ("changes", "closed", "open_"),
    [
        ({}, (1900, 1901), 1902),
        ({"allowed_udp_ports": ((69, 69), (5000, 6000))}, (4999, 6001), 5000),
        ({"redirect_dns": True}, (53, 853), 54),
    ],
)
def test_no_answer_comes_from_a_port_that_is_closed_to_the_guest(
    changes: dict[str, object], closed: tuple[int, ...], open_: int
) -> None:
    with segment(replace(SPEC, **changes)) as lan:  # type: ignore[arg-type]
        lan.judge(asked(), leaving=1)
        assert [answer(lan, port) for port in closed] == [[], []]
        assert [p[UDP].sport for p in answer(lan, open_)] == [open_]


def test_flows_that_begin_outside_count_with_the_guests(lan: Segment) -> None:
    lan.judge(asked(), leaving=1)
    got = [bool(answer(lan, 40000 + n)) for n in range(5)]
    assert got == [True, True, True, False, False]
    assert lan.counters()["limit_udp"] == 2


def test_targets_of_forwards_answer_from_their_port_alone() -> None:
    forward = Forward("udp", IPv4Address("10.9.9.9"), TFTP, IPv4Address(SERVER), 6969)
    with segment(replace(SPEC, forwards=(forward,))) as lan:
        _, left = lan.judge(asked(to="10.9.9.9"), leaving=1)
        assert [(p[IP].dst, p[UDP].dport) for p in left] == [(SERVER, 6969)]
        assert answer(lan, 40001) == []
        assert seen(answer(lan, 6969)) == [("10.9.9.9", TFTP, str(GUEST), 2000, b"answer")]


def test_what_was_asked_is_forgotten_with_its_flow_and_not_before() -> None:
    with segment(replace(SPEC, udp_idle_s=4)) as lan:
        asking_until = time.monotonic() + 6  # without an answer, for longer than a flow lives
        while time.monotonic() < asking_until:
            lan.judge(asked(), leaving=1)
        assert len(answer(lan, 40001)) == 1
        ports = iter(range(40002, 41000))
        wait_until(lambda: not answer(lan, next(ports)), "the answers come too late", 60)
