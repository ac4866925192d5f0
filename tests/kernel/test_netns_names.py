"""The firewall of a tunnel with lists of domains, judged by packets; and its set of addresses in time."""

import errno
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Packet, Raw
from support.segment import Segment, segment
from support.wait import wait_until

from netns import conntrack, nftables
from netns.names import MAX_NAMED, MAX_REDIRECTED_FLOWS
from netns.spec import GUEST, REDIRECTED_DNS_PORT, Forward, SegmentSpec

PUBLIC, OTHER, PRIVATE, SERVER = "93.184.216.34", "151.101.1.69", "10.1.2.3", "8.8.8.8"
FORWARDED = IPv4Address("192.0.2.80")
NO_LISTS = SegmentSpec(
    special=(IPv4Network("10.0.0.0/8"), IPv4Network("192.0.2.0/24")),
    denied_tcp_ports=((25, 25),),
    max_tcp_flows=0,
    max_udp_flows=0,
)
BLOCKING = replace(NO_LISTS, redirect_dns=True)
ALLOWING = replace(
    BLOCKING,
    only_named=True,
    allowed=(IPv4Network("10.7.7.7/32"),),
    forwards=(
        Forward("tcp", FORWARDED, 80, IPv4Address(PRIVATE), 8080),
        Forward("udp", IPv4Address(SERVER), 53, IPv4Address(PRIVATE), 5353),
        Forward("tcp", FORWARDED, 853, IPv4Address(PRIVATE), 853),
    ),
)


@pytest.fixture
def lan() -> Iterator[Segment]:
    with segment(ALLOWING, allow_ping=True) as made:
        yield made


@contextmanager
def netlink_of(lan: Segment) -> Iterator[socket.socket]:
    with socket.socket(fileno=os.dup(lan.interior.netlink)) as netlink:
        netlink.settimeout(5)
        yield netlink


def open_for(lan: Segment, seconds: int, *addresses: str) -> None:
    with netlink_of(lan) as netlink:
        nftables.open_addresses(netlink, [(IPv4Address(address), seconds) for address in addresses])


def syn(dst: str, port: int = 80, sport: int = 40000) -> Packet:
    return IP(src=str(GUEST), dst=dst) / TCP(sport=sport, dport=port, flags="S", seq=1000)


def udp(dst: str, port: int, sport: int = 5, data: bytes = b"try") -> Packet:
    return IP(src=str(GUEST), dst=dst) / UDP(sport=sport, dport=port) / Raw(data)


def ping(dst: str) -> Packet:
    return IP(src=str(GUEST), dst=dst) / ICMP(id=7)


def moved(lan: Segment, packets: Iterable[Packet], leaving: int = 0) -> tuple[list[str], dict[str, int]]:
    """Where what left went to, and the counters that moved."""
    before = lan.counters()
    _, left = lan.judge(*packets, leaving=leaving)
    after = lan.counters()
    return [p[IP].dst for p in left], {key: n - before[key] for key, n in after.items() if n != before[key]}


def test_address_that_dns_has_not_handed_out_is_refused(lan: Segment) -> None:
    back, left = lan.judge(syn(PUBLIC), udp(PUBLIC, 99), ping(PUBLIC))
    assert left == []
    assert [TCP in p and "R" in p[TCP].flags for p in back] == [True, False, False]
    assert [(p[ICMP].type, p[ICMP].code) for p in back[1:]] == [(3, 13)] * 2
    assert {key: n for key, n in lan.counters().items() if n} == {"denied_name": 3}


def test_address_that_dns_has_handed_out_is_within_reach_and_no_other(lan: Segment) -> None:
    open_for(lan, 60, PUBLIC)
    tried = [syn(PUBLIC), udp(PUBLIC, 99), ping(PUBLIC), syn(OTHER), udp(OTHER, 99), ping(OTHER)]
    assert moved(lan, tried, leaving=3) == ([PUBLIC] * 3, {"denied_name": 3})


def test_names_are_judged_last(lan: Segment) -> None:
    """A name opens no private address and no port; an allowed prefix is no exception from the names."""
    open_for(lan, 60, PRIVATE, PUBLIC)
    assert moved(lan, [syn(PRIVATE)]) == ([], {"denied_special": 1})
    assert moved(lan, [syn(PUBLIC, 25), syn(OTHER, 25)]) == ([], {"denied_port": 2})
    assert moved(lan, [syn("10.7.7.7")]) == ([], {"denied_name": 1})
    open_for(lan, 60, "10.7.7.7")
    assert moved(lan, [syn("10.7.7.7")], leaving=1) == (["10.7.7.7"], {})


def test_forwards_are_not_judged_by_names(lan: Segment) -> None:
    tried = [syn(str(FORWARDED)), udp(SERVER, 53), syn(str(FORWARDED), 853)]
    assert moved(lan, tried, leaving=3) == ([PRIVATE] * 3, {})


def test_flow_goes_on_when_its_address_is_over_and_a_new_one_is_refused(lan: Segment) -> None:
    open_for(lan, 1, PUBLIC)
    end = time.monotonic() + 1
    _, left = lan.judge(udp(PUBLIC, 99), leaving=1)
    lan.send_from_nat(IP(src=PUBLIC, dst="10.0.3.100") / UDP(sport=99, dport=left[0][UDP].sport) / b"yes")
    wait_until(lambda: time.monotonic() > end, "the address is over")
    assert moved(lan, [udp(PUBLIC, 99)], leaving=1) == ([PUBLIC], {})
    assert moved(lan, [udp(PUBLIC, 99, sport=6)]) == ([], {"denied_name": 1})


@pytest.mark.slow
def test_time_is_taken_anew_longer_and_shorter(lan: Segment) -> None:
    open_for(lan, 1, PUBLIC, OTHER)
    open_for(lan, 60, PUBLIC)
    end = time.monotonic() + 1
    wait_until(lambda: time.monotonic() > end, "the first promise is over")
    assert moved(lan, [syn(PUBLIC), syn(OTHER)], leaving=1) == ([PUBLIC], {"denied_name": 1})
    open_for(lan, 1, PUBLIC)
    end = time.monotonic() + 1
    wait_until(lambda: time.monotonic() > end, "the shorter one too")
    assert moved(lan, [syn(PUBLIC, sport=2)]) == ([], {"denied_name": 1})


@pytest.mark.slow
def test_address_that_is_opened_again_is_never_closed_between(lan: Segment) -> None:
    open_for(lan, 60, PUBLIC)
    stop = threading.Event()
    times = 0

    def again() -> None:
        nonlocal times
        while not stop.is_set():
            open_for(lan, 60, PUBLIC, OTHER)
            times += 1

    thread = threading.Thread(target=again)
    thread.start()
    try:
        for start in range(0, 600, 30):
            packets = [udp(PUBLIC, 99, sport=1000 + start + n) for n in range(30)]
            assert len(lan.judge(*packets, leaving=30)[1]) == 30
    finally:
        stop.set()
        thread.join()
    assert times > 100
    assert lan.counters()["denied_name"] == 0


def addresses(start: int) -> list[tuple[IPv4Address, int]]:
    return [(IPv4Address(0x5DB80000 + start + n), 60) for n in range(128)]


def test_set_is_bounded_and_a_full_one_changes_nothing(lan: Segment) -> None:
    with netlink_of(lan) as netlink:
        for start in range(0, MAX_NAMED, 128):
            nftables.open_addresses(netlink, addresses(start))
        with pytest.raises(OSError, match=os.strerror(errno.ENFILE)):
            nftables.open_addresses(netlink, addresses(MAX_NAMED))
        assert nftables.read_counters(netlink)["denied_name"] == 0  # no answer of the batch is left behind
        nftables.replace_host_set(netlink, [])
    refused = addresses(MAX_NAMED)[0][0]
    assert moved(lan, [syn(str(refused))]) == ([], {"denied_name": 1})


def test_namespace_without_allowed_names_has_no_set() -> None:
    with segment(BLOCKING) as lan:
        with pytest.raises(FileNotFoundError):
            open_for(lan, 60, PUBLIC)
        assert moved(lan, [syn(PUBLIC)], leaving=1) == ([PUBLIC], {})


def query(name: str = "a.test") -> bytes:
    return bytes(DNS(id=7, qd=DNSQR(qname=name)))


def serve_once(fd: int) -> tuple[str, int]:
    """Answer what came to the second UDP socket with its own bytes in front of a mark."""
    with socket.socket(fileno=os.dup(fd)) as server:
        data, peer = server.recvfrom(2048)
        server.sendto(data + b"!", peer)
        return str(peer[0]), int(peer[1])


def test_dns_to_another_server_comes_to_the_gateway_and_is_answered_from_there() -> None:
    with segment(BLOCKING) as lan:
        back, left = lan.judge(udp(SERVER, 53, data=query()))
        assert (back, left) == ([], [])
        assert serve_once(lan.interior.redirected_udp) == (str(GUEST), 5)
        back, _ = lan.judge()
        assert [(p[IP].src, p[UDP].sport, p[UDP].dport) for p in back] == [(SERVER, 53, 5)]
        assert not any(lan.counters().values())


def test_one_port_of_the_guest_asks_two_servers_and_each_answers() -> None:
    with segment(BLOCKING) as lan:
        lan.judge(udp(SERVER, 53, data=query()), udp("1.1.1.1", 53, data=query()))
        peers = {serve_once(lan.interior.redirected_udp) for _ in range(2)}
        assert len(peers) == 2
        back, _ = lan.judge()
        assert sorted((p[IP].src, p[UDP].dport) for p in back) == [("1.1.1.1", 5), (SERVER, 5)]


def test_dns_over_tcp_to_another_server_is_accepted_from_there() -> None:
    with segment(BLOCKING) as lan:
        back, left = lan.judge(syn(SERVER, 53))
        assert left == []
        assert [(p[IP].src, p[TCP].sport, str(p[TCP].flags)) for p in back] == [(SERVER, 53, "SA")]
        back, _ = lan.judge(IP(src=str(GUEST), dst=SERVER) / TCP(sport=9, dport=53, flags="A"))
        assert [(p[IP].src, str(p[TCP].flags)) for p in back] == [(SERVER, "R")]
        assert lan.counters()["denied_stray"] == 1


def test_port_behind_the_redirection_cannot_be_dialled() -> None:
    with segment(BLOCKING) as lan:
        tried = [syn("10.0.2.2", REDIRECTED_DNS_PORT), udp("10.0.2.2", REDIRECTED_DNS_PORT)]
        assert moved(lan, tried) == ([], {"denied_gateway": 2})
        with pytest.raises(BlockingIOError):
            serve_once(lan.interior.redirected_udp)


@pytest.mark.slow
def test_gateways_own_dns_is_still_not_tracked() -> None:
    with segment(BLOCKING) as lan:
        many = 2 * MAX_REDIRECTED_FLOWS
        for start in range(0, many, 32):
            lan.judge(*(udp("10.0.2.2", 53, 1000 + start + n, query()) for n in range(32)))
        lan.judge(udp(SERVER, 53, data=query()))
        assert serve_once(lan.interior.redirected_udp)
        assert lan.counters()["limit_redirected_dns"] == 0


def test_redirected_flows_are_limited() -> None:
    with segment(BLOCKING) as lan:
        for start in range(0, MAX_REDIRECTED_FLOWS, 32):
            lan.judge(*(udp(SERVER, 53, 1000 + start + n, query()) for n in range(32)))
        assert lan.counters()["limit_redirected_dns"] == 0
        back, _ = lan.judge(udp(SERVER, 53, 999, query()))
        assert [(p[ICMP].type, p[ICMP].code) for p in back] == [(3, 13)]
        assert lan.counters()["limit_redirected_dns"] == 1
        assert moved(lan, [udp(PUBLIC, 99)], leaving=1) == ([PUBLIC], {})  # DNS uses up nothing else


def test_redirected_flows_are_no_flows_of_the_guests() -> None:
    with segment(BLOCKING) as lan:
        lan.judge(udp(SERVER, 53, data=query()), syn(SERVER, 53))
        assert serve_once(lan.interior.redirected_udp)
        with pytest.raises(BlockingIOError):
            os.read(lan.interior.flows, conntrack.MAX_EVENT)
        with socket.socket(fileno=os.dup(lan.interior.netlink)) as netlink:
            assert conntrack.dump(netlink) == []
        lan.judge(udp(PUBLIC, 99), leaving=1)
        assert conntrack.parse(os.read(lan.interior.flows, conntrack.MAX_EVENT))


def test_new_connections_to_redirected_dns_are_limited_in_rate() -> None:
    with segment(BLOCKING) as lan:
        for start in range(0, 400, 40):
            lan.judge(*(syn(SERVER, 53, 1000 + start + n) for n in range(40)))
        assert lan.counters()["limit_redirected_dns"] > 0


@pytest.mark.parametrize("spec", [BLOCKING, ALLOWING], ids=["blocked names", "allowed names"])
def test_encrypted_dns_is_refused_whoever_was_named(spec: SegmentSpec) -> None:
    with segment(spec) as lan:
        if spec.only_named:
            open_for(lan, 60, PUBLIC)
        tried = [syn(PUBLIC, 853), udp(PUBLIC, 853)]
        assert moved(lan, tried) == ([], {"denied_encrypted_dns": 2})
        assert moved(lan, [syn(PUBLIC, 854), udp(PUBLIC, 852)], leaving=2)[0] == [PUBLIC] * 2


def test_without_lists_dns_leaves_as_it_is() -> None:
    with segment(NO_LISTS) as lan:
        assert lan.interior.redirected_udp == lan.interior.redirected_tcp == -1
        tried = [udp(SERVER, 53), syn(SERVER, 53), syn(SERVER, 853), udp(SERVER, 853)]
        assert moved(lan, tried, leaving=4) == ([SERVER] * 4, {})


def test_closed_connection_to_redirected_dns_is_not_opened_again() -> None:
    """Its entry stays for a second, and no limit would count it."""

    def sent(flags: str, seq: int, ack: int = 0) -> Packet:
        return IP(src=str(GUEST), dst=SERVER) / TCP(sport=7, dport=53, flags=flags, seq=seq, ack=ack)

    with segment(BLOCKING) as lan:
        accepted = 0
        begun = time.monotonic()
        for number in range(20):
            seq = 1000 + number * 1_000_000
            back, _ = lan.judge(sent("S", seq))
            syn_acks = [p for p in back if TCP in p and p[TCP].flags == "SA" and p[TCP].ack == seq + 1]
            if syn_acks:
                accepted += 1
                theirs = syn_acks[0][TCP].seq + 1
                lan.judge(sent("A", seq + 1, theirs), sent("R", seq + 1), sent("A", seq + 1, theirs))
        assert 1 <= accepted <= 2 + time.monotonic() - begun
