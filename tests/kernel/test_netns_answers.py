"""What the NAT side answers is counted by what it says about the guest's packets."""

import itertools
from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Packet
from support.segment import Segment, segment
from support.wait import wait_until

from netns import answers
from netns.spec import GUEST, NAT_CLIENT, NAT_HOST, SegmentSpec

PUBLIC = "93.184.216.34"


@pytest.fixture
def lan() -> Iterator[Segment]:
    with segment(SegmentSpec(), allow_ping=True) as made:
        yield made


ports = itertools.count(40000)


def sent(lan: Segment, packet: Packet) -> Packet:
    """The packet as it left towards the NAT."""
    _, left = lan.judge(IP(src=str(GUEST), dst=PUBLIC) / packet, leaving=1)
    return left[0][IP]


def syn(lan: Segment) -> Packet:
    return sent(lan, TCP(sport=next(ports), dport=80, flags="S", seq=1000))


def datagram(lan: Segment) -> Packet:
    return sent(lan, UDP(sport=next(ports), dport=99) / b"hello")


def error(about: Packet, kind: int = 3, code: int = 1) -> Packet:
    """The ICMP error the NAT process makes of a packet."""
    return IP(src=str(NAT_HOST), dst=str(NAT_CLIENT)) / ICMP(type=kind, code=code) / about


def reply(to: Packet, flags: str, seq: int = 0) -> Packet:
    answer = TCP(sport=to.dport, dport=to.sport, flags=flags, seq=seq, ack=to[TCP].seq + 1, window=8192)
    return IP(src=PUBLIC, dst=str(NAT_CLIENT)) / answer


def counted(lan: Segment, *packets: Packet, tcp: int = 0, udp: int = 0) -> bool:
    """Send packets from the NAT side; whether so many failed connections and datagrams are counted then."""
    for packet in packets:
        lan.send_from_nat(packet)
    lan.judge()

    def counts() -> bool:
        counters = lan.counters()
        return (counters["failed_tcp"], counters["failed_udp"]) == (tcp, udp)

    return wait_until(counts, f"{tcp} connections and {udp} datagrams are counted")


def test_answer_counters_are_in_the_ruleset(lan: Segment) -> None:
    assert {name: lan.counters()[name] for name in answers.COUNTERS} == {"failed_tcp": 0, "failed_udp": 0}


def test_reset_of_a_connect_is_counted_once(lan: Segment) -> None:
    first, second = syn(lan), syn(lan)
    assert counted(lan, reply(first, "RA"), reply(first, "RA"), tcp=1)
    assert counted(lan, reply(second, "RA"), tcp=2)


def test_reset_of_an_open_connection_is_not_counted(lan: Segment) -> None:
    opening = syn(lan)
    assert counted(lan, reply(opening, "SA", seq=7000))
    sport = opening[TCP].sport
    sent(lan, TCP(sport=sport, dport=80, flags="A", seq=1001, ack=7001))
    assert counted(lan, reply(opening, "RA", seq=7001))


def test_answered_connect_and_its_end_are_not_counted(lan: Segment) -> None:
    opening = syn(lan)
    assert counted(lan, reply(opening, "SA", seq=7000))
    sport = opening[TCP].sport
    sent(lan, TCP(sport=sport, dport=80, flags="A", seq=1001, ack=7001))
    assert counted(lan, reply(opening, "FA", seq=7001))
    sent(lan, TCP(sport=sport, dport=80, flags="R", seq=1001))
    assert counted(lan)


@pytest.mark.parametrize(("kind", "code"), [(3, 0), (3, 1), (3, 3), (11, 0)])
def test_icmp_errors_are_counted_by_what_they_quote(lan: Segment, kind: int, code: int) -> None:
    first, second, opening = datagram(lan), datagram(lan), syn(lan)
    assert counted(lan, error(first, kind, code), udp=1)
    assert counted(lan, error(first, kind, code), error(second, kind, code), udp=3)
    assert counted(lan, error(opening, kind, code), tcp=1, udp=3)


def test_answers_to_datagrams_and_pings_are_not_counted(lan: Segment) -> None:
    asked = datagram(lan)
    data = IP(src=PUBLIC, dst=str(NAT_CLIENT)) / UDP(sport=99, dport=asked[UDP].sport) / b"answer"
    ping = sent(lan, ICMP(id=77, seq=1))
    pong = IP(src=PUBLIC, dst=str(NAT_CLIENT)) / ICMP(type=0, id=77, seq=1)
    assert counted(lan, data, pong, error(ping))


def test_what_answers_nothing_is_not_counted(lan: Segment) -> None:
    stranger = IP(src=str(NAT_CLIENT), dst=PUBLIC)
    assert counted(
        lan,
        error(stranger / UDP(sport=5, dport=99)),
        error(stranger / TCP(sport=5, dport=80, flags="S")),
        IP(src=PUBLIC, dst=str(NAT_CLIENT)) / TCP(sport=80, dport=5, flags="RA"),
    )
