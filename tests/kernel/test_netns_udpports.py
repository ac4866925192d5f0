"""Ports of the NAT's side that a guest's datagrams come from: the host has one socket for each."""

import time
from collections.abc import Iterable
from dataclasses import replace

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Packet
from support.segment import Segment, segment
from support.wait import wait_until

from netns import udpports
from netns.ruleset import LIMIT_COUNTERS
from netns.spec import GUEST, SegmentSpec

SERVER = "93.184.216.34"
OTHER = "93.184.216.35"
FLOWS = 64
SPEC = SegmentSpec(max_udp_flows=FLOWS, max_new_flows_per_s=0, udp_idle_s=1)
OWN = 24  # of 64
MOST = 96
FIRST = 2000


def question(sport: int, dport: int = 99, dst: str = SERVER) -> Packet:
    return IP(src=str(GUEST), dst=dst) / UDP(sport=sport, dport=dport) / str(sport).encode()


def answer(lan: Segment, asked: Packet) -> list[int]:
    """Answer what the NAT has got; the guest's ports that this came to."""
    sent, port = asked[IP], asked[UDP].sport
    lan.send_from_nat(IP(src=sent.dst, dst=sent.src) / UDP(sport=asked[UDP].dport, dport=port) / b"answer")
    return [packet[UDP].dport for packet in lan.judge()[0]]


def asker(packet: Packet) -> int:
    """The guest's port that a datagram comes from."""
    return int(bytes(packet[UDP].payload))


def outside(lan: Segment, sports: Iterable[int], dport: int = 99) -> list[int]:
    """Ask from these ports, each until it is let through; the ports that the NAT has seen, in their order."""
    found = dict.fromkeys(sports, 0)

    def all_left() -> bool:
        _, left = lan.judge(*(question(sport, dport) for sport in found if not found[sport]))
        found.update({asker(packet): packet[UDP].sport for packet in left})
        return all(found.values())

    wait_until(all_left, "flows end", 30)
    return list(found.values())


def test_guest_that_goes_through_its_ports_takes_no_more_than_one_and_a_half_times_its_flows() -> None:
    with segment(SPEC) as lan:
        seen = outside(lan, range(FIRST, FIRST + 2 * MOST))
        assert seen[:OWN] == list(range(FIRST, FIRST + OWN))
        shared = udpports.shared_ports(FLOWS)
        assert set(seen[OWN:]) <= set(shared)
        assert OWN + len(shared) == MOST


def test_as_many_flows_as_there_may_be_begin_and_each_gets_its_own_answers() -> None:
    with segment(replace(SPEC, udp_idle_s=60)) as lan:
        _, left = lan.judge(*(question(FIRST + n) for n in range(FLOWS)), leaving=FLOWS)
        assert [asker(packet) for packet in left] == list(range(FIRST, FIRST + FLOWS))
        assert [answer(lan, packet) for packet in left] == [[FIRST + n] for n in range(FLOWS)]
        lan.judge(question(FIRST + FLOWS))
        assert {name: n for name, n in lan.counters().items() if name in LIMIT_COUNTERS and n} == {
            "limit_udp": 1
        }


@pytest.mark.parametrize("flows", [0, 1, 1_000_000])
def test_any_limit_of_flows_lets_flows_begin(flows: int) -> None:
    with segment(replace(SPEC, max_udp_flows=flows)) as lan:
        _, left = lan.judge(question(FIRST), leaving=1)
        assert answer(lan, left[0]) == [FIRST]


def test_port_has_one_port_outside_whomever_it_sends_to() -> None:
    """Endpoint-independent mapping (RFC 4787 REQ-1), which programs that meet through a third rely on."""
    with segment(replace(SPEC, udp_idle_s=60)) as lan:
        _, left = lan.judge(question(FIRST), question(FIRST, dst=OTHER), question(FIRST, 100), leaving=3)
        assert [packet[UDP].sport for packet in left] == [FIRST] * 3


def test_questions_to_name_servers_take_no_port_from_other_programs() -> None:
    with segment(SPEC) as lan:
        asked = outside(lan, range(FIRST, FIRST + OWN), dport=53)
        assert set(asked) <= set(udpports.shared_ports(FLOWS))
        assert outside(lan, [7000]) == [7000]


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> SegmentSpec:
    """Ports are forgotten after 3 s instead of 245."""
    monkeypatch.setattr(udpports, "KEPT_S", 3)
    return replace(SPEC, max_udp_flows=8)  # a ruleset that no other test has rendered


def test_port_that_is_not_used_any_more_makes_room_for_another(forgetful: SegmentSpec) -> None:
    with segment(forgetful) as lan:
        own = udpports.own_ports(8)
        assert outside(lan, range(FIRST, FIRST + own)) == list(range(FIRST, FIRST + own))
        assert outside(lan, [7000]) != [7000]
        others = iter(range(7001, 9000))
        wait_until(lambda: outside(lan, [other := next(others)]) == [other], "the first are forgotten", 15)


def test_port_that_is_sent_to_from_outside_is_remembered_though_its_flow_is_forgotten(
    forgetful: SegmentSpec,
) -> None:
    """libslirp keeps its socket for these, too: who has a friend outside would hold any number of them."""
    with segment(forgetful) as lan:
        own = range(FIRST, FIRST + udpports.own_ports(8))
        outside(lan, own)
        end = time.monotonic() + 2 * udpports.KEPT_S
        others = iter(range(7001, 9000))

        def all_are_sent_to() -> bool:
            for port in own:
                lan.send_from_nat(IP(src=OTHER, dst="10.0.3.100") / UDP(sport=1, dport=port) / b"x")
            other = next(others)
            assert outside(lan, [other]) != [other]
            return time.monotonic() > end

        wait_until(all_are_sent_to, "longer than they are kept", 60)
