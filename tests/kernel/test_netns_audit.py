"""What a namespace tells for an audit log: flows exactly, refused packets without a byte of payload."""

import os
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, fragment
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw
from support.segment import Segment, segment

from netns import auditrules, conntrack, denials, details, ruleset
from netns.spec import GATEWAY, GUEST, LOOPBACK, NAT_CLIENT, Forward, SegmentSpec

PUBLIC = "93.184.216.34"
CANARY = b"canary-of-a-guest"
LISTS = SegmentSpec(
    denied=(IPv4Network("198.18.0.0/15"),),
    special=(IPv4Network("10.0.0.0/8"),),
    denied_tcp_ports=((25, 25),),
    denied_udp_ports=((53, 53),),
    forwards=(
        Forward("tcp", IPv4Address("192.0.2.80"), 25, LOOPBACK, 2525),
        Forward("udp", IPv4Address("192.0.2.81"), 99, IPv4Address("10.1.2.3"), 100),
    ),
    audit=True,
)
HOSTS = frozenset({IPv4Network("45.33.32.10/32")})


@pytest.fixture
def lan() -> Iterator[Segment]:
    with segment(LISTS, HOSTS, allow_ping=True) as made:
        yield made


def told(lan: Segment) -> list[bytes]:
    """Every datagram about refused packets that waits."""
    found = []
    with socket.socket(fileno=os.dup(lan.interior.denials)) as log:
        while True:
            try:
                found.append(log.recv(65536))
            except BlockingIOError:
                return found


def denied(lan: Segment) -> list[denials.Denial]:
    return [denial for data in told(lan) for denial in denials.parse(data)]


def of_guest(target: str) -> Packet:
    return IP(src=str(GUEST), dst=target)


def test_every_refusing_rule_tells_of_it_and_nothing_else_changes() -> None:
    for spec in (LISTS, replace(LISTS, only_named=True, redirect_dns=True, max_bytes_per_second=1_000_000)):
        plain = ruleset.render(replace(spec, audit=False), HOSTS, True)
        rules = ruleset.render(spec, HOSTS, True)
        assert "log" not in plain
        assert "flows_begun" not in plain
        assert "ct bytes" not in plain
        left = set(re.findall(r"counter name (denied_\w+) (?:goto refuse|drop)", rules))
        assert left == {"denied_martian"}, "TCP to loopback, which is told of before it is translated"
        used = set(re.findall(r"counter name (denied_\w+) ", plain))
        assert {prefix.split("/")[0] for prefix in re.findall(r'log prefix "(\S+)"', rules)} == used
        assert set(re.findall(r"snaplen (\d+)", rules)) == {"20", "24"}


def test_refused_packets_are_told_of_by_rule_and_where_they_were_to_go(lan: Segment) -> None:
    load = Raw(CANARY * 20)
    cases: list[tuple[Packet, tuple[str, int, str, int | None, bool]]] = [
        (of_guest("198.18.0.9") / TCP(dport=81) / load, ("denied_prefix", 6, "198.18.0.9", 81, False)),
        (of_guest("10.9.8.7") / UDP(dport=82) / load, ("denied_special", 17, "10.9.8.7", 82, False)),
        (of_guest("10.9.8.7") / ICMP() / load, ("denied_special", 1, "10.9.8.7", None, False)),
        (of_guest("45.33.32.10") / TCP(dport=22), ("denied_host", 6, "45.33.32.10", 22, False)),
        (of_guest(str(GATEWAY)) / TCP(dport=22), ("denied_gateway", 6, str(GATEWAY), 22, False)),
        (of_guest("10.0.3.2") / TCP(dport=22), ("denied_nat", 6, "10.0.3.2", 22, False)),
        (of_guest("127.0.0.53") / UDP(dport=53) / load, ("denied_martian", 17, "127.0.0.53", 53, False)),
        (of_guest("127.0.0.53") / TCP(dport=53), ("denied_martian", 6, "127.0.0.53", 53, False)),
        (
            of_guest("224.0.0.251") / UDP(dport=5353) / load,
            ("denied_martian", 17, "224.0.0.251", 5353, False),
        ),
        (of_guest(PUBLIC) / TCP(dport=25), ("denied_port", 6, PUBLIC, 25, False)),
        (of_guest("192.0.2.80") / TCP(dport=25), ("denied_port", 6, "10.0.3.2", 2525, True)),
        (of_guest(PUBLIC) / TCP(dport=80, flags="A"), ("denied_stray", 6, PUBLIC, 80, False)),
        (IP(src=str(GUEST), dst=PUBLIC, proto=47) / load, ("denied_protocol", 47, PUBLIC, None, False)),
        (IP(src="10.0.2.99", dst=PUBLIC) / TCP(dport=80), ("denied_spoofed", 6, PUBLIC, 80, False)),
        (
            IP(src=str(GUEST), dst="10.9.8.7", options=[IPOption_NOP()] * 4) / UDP(dport=82) / load,
            ("denied_special", 17, "10.9.8.7", None, False),
        ),
    ]
    for packet, expected in cases:
        lan.judge(packet)
        datagrams = told(lan)
        assert [tuple(denial) for data in datagrams for denial in denials.parse(data)] == [expected]
        assert not any(CANARY[:4] in data for data in datagrams)


def test_fragments_and_ipv6_give_no_payload_away(lan: Segment) -> None:
    spoofed = IP(src="10.0.2.99", dst=PUBLIC) / UDP(dport=99) / Raw(CANARY * 200)
    lan.judge(*fragment(spoofed, 1000), IPv6() / UDP(dport=99) / Raw(CANARY))
    found = told(lan)
    ports = [denial.port for data in found for denial in denials.parse(data)]
    assert ports == [99, None, None, None]
    assert not any(CANARY[:4] in data or CANARY[-4:] in data for data in found)


def test_flood_of_refused_packets_is_copied_at_a_bounded_rate_and_counted(lan: Segment) -> None:
    for first in range(1000, 2000, 100):
        lan.judge(*(of_guest("10.9.8.7") / UDP(dport=port) / b"x" for port in range(first, first + 100)))
    assert lan.counters()["denied_special"] == 1000
    assert auditrules.BURST <= len(denied(lan)) <= auditrules.BURST + 60


def test_verdicts_are_those_without_an_audit() -> None:
    packets = [
        *(
            of_guest(target) / TCP(dport=port, flags="S")
            for target in (PUBLIC, "10.9.8.7")
            for port in (25, 80)
        ),
        *(of_guest(target) / UDP(dport=99) / b"x" for target in (PUBLIC, "127.0.0.1", "192.0.2.81")),
        *(of_guest("224.0.0.1") / UDP(dport=99) / b"x", of_guest(PUBLIC) / ICMP(id=3)),
    ]
    seen = []
    for audit in (False, True):
        with segment(replace(LISTS, audit=audit), HOSTS, allow_ping=True) as made:
            back, out = made.judge(*packets, leaving=4)
            counters = made.counters()
            begun = counters.pop(auditrules.FLOWS, None)
            assert begun == (4 if audit else None)
            seen.append((sorted(map(_shape, back)), sorted(map(_shape, out)), counters))
    assert seen[0] == seen[1]


def _shape(packet: Packet) -> str:
    return packet.summary()


@contextmanager
def events(lan: Segment) -> Iterator[socket.socket]:
    with socket.socket(fileno=os.dup(lan.interior.flows)) as connection:
        yield connection


def read_events(lan: Segment) -> list[tuple[bool, details.Facts]]:
    found = []
    with events(lan) as connection:
        while True:
            try:
                data = connection.recv(4096)
            except BlockingIOError:
                return found
            event = details.of_event(data)
            if event is not None:
                assert event[1] == details._facts(data[20:]), "what is read by offset is what is walked to"
                found.append(event)


def looked_up(lan: Segment, *wanted: details.Ends) -> list[details.Facts]:
    with socket.socket(fileno=os.dup(lan.interior.netlink)) as connection:
        return list(details.unpack(details.read(connection, wanted)))


def ends(protocol: int, source_port: int, target: str, target_port: int) -> details.Ends:
    return details.Ends(protocol, GUEST.packed, source_port, socket.inet_aton(target), target_port)


def test_flows_have_exact_packets_and_bytes_each_way(lan: Segment) -> None:
    sent = [of_guest(PUBLIC) / UDP(sport=5001, dport=99) / Raw(b"x" * size) for size in (1, 700, 1400)]
    lan.judge(*sent, leaving=3)
    answer = IP(src=PUBLIC, dst=str(NAT_CLIENT)) / UDP(sport=99, dport=5001) / Raw(b"y" * 900)
    for _ in range(2):
        lan.send_from_nat(answer)
    lan.judge(*(of_guest(PUBLIC) / ICMP(id=7, seq=number) / b"ping" for number in range(4)), leaving=4)
    udp, ping = ends(17, 5001, PUBLIC, 99), ends(1, 7, PUBLIC, 8 << 8)
    began = [facts for is_begun, facts in read_events(lan) if is_begun]
    assert [facts.ends for facts in began] == [udp, ping]
    found = looked_up(lan, udp, ping, ends(6, 1, PUBLIC, 1))
    assert [facts.flow for facts in found] == [facts.flow for facts in began]
    assert [tuple(facts[-5:]) for facts in found] == [
        (True, 3, sum(len(bytes(packet)) for packet in sent), 2, 2 * len(bytes(answer))),
        (True, 4, 4 * (20 + 8 + 4), 0, 0),
    ]
    assert sorted(looked_up(lan)) == sorted(found)


def test_end_of_a_flow_comes_with_its_counters_and_state(lan: Segment) -> None:
    syn = of_guest(PUBLIC) / TCP(sport=4001, dport=80, flags="S", seq=1000)
    lan.judge(syn, leaving=1)
    refused = IP(src=PUBLIC, dst=str(NAT_CLIENT)) / TCP(sport=80, dport=4001, flags="RA", seq=0, ack=1001)
    lan.send_from_nat(refused)
    lan.judge()
    (_, began), (is_begun, ended) = read_events(lan)
    assert not is_begun
    assert ended.flow == began.flow
    assert (ended.state, ended.status & details.ASSURED) == (details.CLOSE, 0)
    assert tuple(ended[-5:]) == (True, 1, 40, 1, 40)


def test_forwards_tell_who_answers(lan: Segment) -> None:
    lan.judge(of_guest("192.0.2.81") / UDP(sport=5001, dport=99) / b"x", leaving=1)
    ((_, facts),) = read_events(lan)
    assert facts.ends == ends(17, 5001, "192.0.2.81", 99)
    assert (socket.inet_ntoa(facts.answers), facts.answers_port) == ("10.1.2.3", 100)


def test_nothing_is_counted_or_copied_where_nobody_asks() -> None:
    with segment(replace(LISTS, audit=False)) as made:
        made.judge(of_guest(PUBLIC) / UDP(sport=5001, dport=99) / b"x", leaving=1)
        (facts,) = looked_up(made, ends(17, 5001, PUBLIC, 99))
        assert not facts.is_counted
        assert made.interior.denials == -1


def test_buffer_holds_more_events_than_flows_may_begin_at_once() -> None:
    with segment(replace(LISTS, max_udp_flows=0, max_new_flows_per_s=0)) as made:
        for first in range(10000, 11200, 50):
            packets = (
                of_guest(PUBLIC) / UDP(sport=sport, dport=99) / b"x" for sport in range(first, first + 50)
            )
            made.judge(*packets, leaving=50)
        with events(made) as connection:
            size = connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        assert size >= 2 * conntrack.RECEIVE_BUFFER
        assert len(read_events(made)) == 1200 or size < 1 << 21  # beyond net.core.rmem_max


def test_kernel_holds_the_log_to_headers_whatever_the_rule_says() -> None:
    """The socket's own bound (NFULNL_COPY_PACKET), behind that of the rule."""
    with segment(LISTS) as made:
        made.judge(of_guest("10.9.8.7") / UDP(dport=82) / Raw(CANARY * 50))
        (data,) = told(made)
        attributes = data[20:]
        payloads = []
        while len(attributes) >= 4:
            length, kind = struct.unpack_from("=HH", attributes)
            payloads += [attributes[4:length]] if kind == 9 else []
            attributes = attributes[(length + 3) & ~3 :]
        assert [len(payload) for payload in payloads] == [auditrules.COPIED]
