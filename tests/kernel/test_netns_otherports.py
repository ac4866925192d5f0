"""Answers from another port than the one that was asked: who gets in, who does not, and what it costs."""

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Packet
from support.segment import Segment, segment
from support.wait import wait_until

from netns import nftables
from netns.otherports import MAX_ASKED
from netns.spec import GATEWAY, GUEST, NAT_CLIENT, Forward, SegmentSpec

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
    lan.judge(*[asked(sport=2000 + n) for n in range(4)], leaving=4)
    assert not answer(lan, 40000)
    assert lan.counters()["limit_udp"] == 1


def test_flows_that_begin_outside_leave_the_guest_half_of_its_own() -> None:
    with segment(replace(SPEC, max_udp_flows=6)) as lan:
        lan.judge(asked(), leaving=1)
        assert [bool(answer(lan, 40000 + n)) for n in range(5)] == [True, True, True, False, False]
        _, left = lan.judge(*[asked(sport=3000 + n, to=OTHER) for n in range(3)], leaving=2)
        assert (len(left), lan.counters()["limit_udp"]) == (2, 3)


def test_flows_that_begin_outside_are_limited_where_the_guests_are_not() -> None:
    with segment(replace(SPEC, max_udp_flows=0, max_new_flows_per_s=0)) as lan:
        lan.judge(asked(), leaving=1)
        got = 0
        for n in range(MAX_ASKED + 3):
            lan.send_from_nat(IP(src=SERVER, dst=str(NAT_CLIENT)) / UDP(sport=40000 + n, dport=2000))
            if n % 64 == 0 or n > MAX_ASKED:
                got += len(lan.judge()[0])
        assert (got, lan.counters()["limit_udp"]) == (MAX_ASKED, 3)


def test_flows_that_begin_outside_begin_at_a_tenth_of_the_rate() -> None:
    with segment(replace(SPEC, max_udp_flows=0, max_new_flows_per_s=10)) as lan:
        lan.judge(asked(), leaving=1)
        for n in range(30):
            lan.send_from_nat(IP(src=SERVER, dst=str(NAT_CLIENT)) / UDP(sport=40000 + n, dport=2000))
        assert 2 <= len(lan.judge()[0]) < 10
        assert lan.counters()["limit_new_flows"] > 20


@pytest.mark.parametrize(("allowed", "comes"), [((), False), ((IPv4Network(f"{SERVER}/32"),), True)])
def test_address_that_has_become_the_hosts_begins_no_flow_and_ends_those_begun(
    allowed: tuple[IPv4Network, ...], *, comes: bool
) -> None:
    with segment(replace(SPEC, allowed=allowed)) as lan:
        lan.judge(asked(), leaving=1)
        assert len(answer(lan, 40001)) == 1
        lan.become_hosts(IPv4Network(f"{SERVER}/32"))
        assert bool(answer(lan, 40002)) is comes
        _, left = lan.judge(asked(40001), leaving=int(comes))
        assert bool(left) is comes


def test_nothing_comes_in_to_another_address_than_the_nat_clients(lan: Segment) -> None:
    lan.judge(asked(), leaving=1)
    for to in ("10.0.3.255", "255.255.255.255", str(GATEWAY), "224.0.0.1", str(GUEST)):
        lan.send_from_nat(IP(src=SERVER, dst=to) / UDP(sport=40001, dport=2000))
    assert lan.judge()[0] == []


@pytest.mark.parametrize("before", [False, True])
def test_what_a_forward_leads_elsewhere_does_not_answer_itself(before: bool) -> None:
    """Else what the guest sends there would no longer go to the forward's target."""
    forward = Forward("udp", IPv4Address(SERVER), TFTP, IPv4Address("10.9.9.9"), 6969)
    with segment(replace(SPEC, forwards=(forward,))) as lan:
        lan.judge(asked(70), leaving=1)
        if before:
            lan.judge(asked(), leaving=1)
        assert answer(lan, TFTP) == []
        _, left = lan.judge(asked(), leaving=1)
        assert [p[IP].dst for p in left] == ["10.9.9.9"]


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


def test_address_whose_name_has_expired_begins_no_flow_and_those_that_began_go_on() -> None:
    with segment(replace(SPEC, redirect_dns=True, only_named=True)) as lan:
        with socket.socket(fileno=os.dup(lan.interior.netlink)) as netlink:
            nftables.open_addresses(netlink, [(IPv4Address(SERVER), 4)])
        lan.judge(asked(), leaving=1)
        assert len(answer(lan, 40001)) == 1
        wait_until(lambda: lan.judge(asked(sport=3000))[0], "the name expires", 30)
        assert answer(lan, 40002) == []
        assert len(answer(lan, 40001)) == 1
