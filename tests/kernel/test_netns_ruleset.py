"""Each rule of a tunnel's firewall, judged by a packet: what left, what came back, which counter moved."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from pyroute2.iproute.linux import IPRoute
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw
from support.segment import GUEST_MAC, Segment, segment
from support.wait import wait_until

from netns import link, nftables
from netns.namespace import Workshop
from netns.spec import GATEWAY, GUEST, Forward, SegmentSpec

HOST = IPv4Address("45.33.32.10")
HOSTS = frozenset({IPv4Network(HOST), IPv4Network("151.101.64.0/24")})
PUBLIC = "93.184.216.34"
SPEC = SegmentSpec(
    special=tuple(IPv4Network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "169.254.0.0/16")),
    denied_tcp_ports=((25, 25),),
    denied_udp_ports=((1900, 1901),),
    forwards=(
        Forward("tcp", GATEWAY, 8080, IPv4Address("127.0.0.1"), 80),
        Forward("udp", IPv4Address("10.9.9.9"), 5000, IPv4Address("192.168.7.7"), 6000),
        Forward("tcp", IPv4Address("1.1.1.1"), 25, IPv4Address(PUBLIC), 2525),
    ),
    max_tcp_flows=4,
    max_udp_flows=3,
)


def networks(text: str) -> tuple[IPv4Network, ...]:
    return tuple(IPv4Network(item) for item in text.split())


@pytest.fixture
def lan() -> Iterator[Segment]:
    """A segment with every kind of rule in it."""
    with segment(SPEC, HOSTS) as made:
        yield made


def ip(dst: str, src: str = str(GUEST)) -> Packet:
    return IP(src=src, dst=dst)


def syn(dst: str, port: int = 80, sport: int = 40000) -> Packet:
    return ip(dst) / TCP(sport=sport, dport=port, flags="S", seq=1000)


DENIED = {
    "spoofed source": (ip(PUBLIC, "10.0.2.16") / UDP(dport=99), "denied_spoofed", None),
    "public source": (ip(PUBLIC, "8.8.8.8") / TCP(dport=80, flags="S"), "denied_spoofed", None),
    "gateway's own source": (ip(PUBLIC, "10.0.2.2") / UDP(dport=99), "denied_spoofed", None),
    "zero source, DHCP elsewhere": (ip(PUBLIC, "0.0.0.0") / UDP(sport=68, dport=67), "denied_spoofed", None),
    "zero source, not DHCP": (ip(PUBLIC, "0.0.0.0") / UDP(sport=68, dport=99), "denied_spoofed", None),
    "loopback, TCP": (syn("127.0.0.1"), "denied_martian", "rst"),
    "loopback, UDP": (ip("127.1.2.3") / UDP(dport=99), "denied_martian", "icmp"),
    "this network": (syn("0.0.0.1"), "denied_martian", "rst"),
    "multicast": (ip("224.0.0.251") / UDP(dport=5353), "denied_martian", None),
    "gateway, TCP": (syn("10.0.2.2", 22), "denied_gateway", "rst"),
    "gateway, UDP": (ip("10.0.2.2") / UDP(dport=123), "denied_gateway", "icmp"),
    "namespace's NAT address": (syn("10.0.3.100"), "denied_gateway", "rst"),
    "limited broadcast": (ip("255.255.255.255") / UDP(dport=137), "denied_gateway", None),
    "another host of the LAN": (syn("10.0.2.77"), "denied_lan", "rst"),
    "NAT process": (syn("10.0.3.2"), "denied_nat", "rst"),
    "NAT process's DNS": (ip("10.0.3.3") / UDP(dport=53), "denied_nat", "icmp"),
    "host's address, TCP": (syn(str(HOST), 443), "denied_host", "rst"),
    "prefix routed to the host": (syn("151.101.64.255"), "denied_host", "rst"),
    "host's address, UDP": (ip(str(HOST)) / UDP(dport=53), "denied_host", "icmp"),
    "private, off byte boundary": (syn("172.31.255.255"), "denied_special", "rst"),
    "metadata": (syn("169.254.169.254"), "denied_special", "rst"),
    "mail": (syn(PUBLIC, 25), "denied_port", "rst"),
    "UDP port of a range": (ip(PUBLIC) / UDP(dport=1901), "denied_port", "icmp"),
    "forward whose dialled port is denied": (syn("1.1.1.1", 25), "denied_port", "rst"),
    "ping where the host permits none": (ip(PUBLIC) / ICMP(), "denied_protocol", "icmp"),
    "GRE": (IP(src=str(GUEST), dst=PUBLIC, proto=47) / Raw(b"x" * 20), "denied_protocol", "icmp"),
    "SCTP": (IP(src=str(GUEST), dst=PUBLIC, proto=132) / Raw(b"x" * 20), "denied_protocol", "icmp"),
    "ACK without a connection": (ip(PUBLIC) / TCP(dport=80, flags="A"), "denied_stray", "rst"),
    "SYN and FIN, no valid flags": (ip(PUBLIC) / TCP(dport=80, flags="SF"), "invalid", None),
}


@pytest.mark.parametrize("name", DENIED)
def test_denied_packet_is_counted_refused_and_does_not_leave(lan: Segment, name: str) -> None:
    packet, counter, answer = DENIED[name]
    before = lan.counters()
    back, left = lan.judge(packet)
    moved = {key: n - before[key] for key, n in lan.counters().items() if n != before[key]}
    assert left == []
    assert moved == {counter: 1}
    assert [kind_of(reply) for reply in back] == ([answer] if answer else [])


def inside(lan: Segment, look: Callable[[], set[str]]) -> set[str]:
    """Run ``look`` in the segment's namespace."""
    workshop = Workshop(threads=1)
    try:
        return workshop.submit_inside(lan.interior.netns, look).result(10)
    finally:
        workshop.close()


def kind_of(reply: Packet) -> str:
    """rst, or icmp for type 3 code 13; anything else in words."""
    if TCP in reply and "R" in reply[TCP].flags and ICMP not in reply:
        return "rst"
    if ICMP in reply and (reply[ICMP].type, reply[ICMP].code) == (3, 13):
        return "icmp"
    return str(reply.summary())


def test_public_tcp_and_udp_leave_with_the_nat_clients_address(lan: Segment) -> None:
    back, left = lan.judge(syn(PUBLIC), ip(PUBLIC) / UDP(sport=5, dport=99) / b"hello", leaving=2)
    assert back == []
    assert [(p[IP].src, p[IP].dst) for p in left] == [("10.0.3.100", PUBLIC)] * 2
    assert left[1][Raw].load == b"hello"


def test_prefix_edges_are_exact(lan: Segment) -> None:
    inside = [syn("172.16.0.0"), syn("172.31.255.255")]
    outside = [syn("172.15.255.255", sport=1), syn("172.32.0.0", sport=2)]
    _, left = lan.judge(*inside, *outside, leaving=2)
    assert [p[IP].dst for p in left] == ["172.15.255.255", "172.32.0.0"]


def test_forwards_go_to_their_targets_and_open_nothing_else(lan: Segment) -> None:
    back, left = lan.judge(
        syn("10.0.2.2", 8080),
        ip("10.9.9.9") / UDP(sport=7, dport=5000),
        ip("10.9.9.9") / UDP(sport=7, dport=5001),
        syn("10.0.3.2", 80, sport=3),
        leaving=2,
    )
    assert [(p[IP].dst, p[IP].payload.dport) for p in left] == [("10.0.3.2", 80), ("192.168.7.7", 6000)]
    assert sorted(kind_of(reply) for reply in back) == ["icmp", "rst"]


def test_ping_leaves_where_the_host_permits_it() -> None:
    with segment(SPEC, HOSTS, allow_ping=True) as lan:
        _, left = lan.judge(ip(PUBLIC) / ICMP(), ip(PUBLIC) / ICMP(type=13), leaving=1)
        assert [p[ICMP].type for p in left] == [8]


def test_flow_limits_refuse_and_count(lan: Segment) -> None:
    _, left = lan.judge(*(syn(PUBLIC, sport=1000 + n) for n in range(6)), leaving=4)
    assert len(left) == 4
    _, left = lan.judge(*(ip(PUBLIC) / UDP(sport=1000 + n, dport=99) for n in range(5)), leaving=3)
    assert len(left) == 3
    assert lan.counters()["limit_tcp"] == 2
    assert lan.counters()["limit_udp"] == 2


def test_queries_to_the_gateway_cost_no_flow(lan: Segment) -> None:
    query = DNS(qd=DNSQR(qname="a.test"))
    lan.judge(*(ip("10.0.2.2") / UDP(sport=1000 + n, dport=53) / query for n in range(20)))
    assert lan.counters()["limit_udp"] == 0
    _, left = lan.judge(ip(PUBLIC) / UDP(sport=5, dport=99), leaving=1)
    assert len(left) == 1


def test_connections_to_the_gateways_dns_are_limited_in_rate(lan: Segment) -> None:
    flood = (IP(src=str(GUEST), dst="10.0.2.2") / TCP(sport=1 + n, dport=53, flags="S") for n in range(400))
    lan.judge(*flood)
    assert lan.counters()["limit_dns"] > 0


def open_connection(lan: Segment, dst: str = PUBLIC, port: int = 443) -> None:
    """TCP from the guest's port 40000, which `PUBLIC` answers; established at sequence 1001 and 701."""
    _, (syn_left, *_) = lan.judge(syn(dst, port), leaving=1)
    reply = TCP(sport=syn_left[TCP].dport, dport=syn_left[TCP].sport, flags="SA", seq=700, ack=1001)
    lan.send_from_nat(IP(src=PUBLIC, dst="10.0.3.100") / reply)
    lan.judge(going_on(dst, port), leaving=1)


def going_on(dst: str = PUBLIC, port: int = 443) -> IP:
    return ip(dst) / TCP(sport=40000, dport=port, flags="PA", seq=1001, ack=701) / b"goes on"


def test_syn_within_an_open_connection_is_judged_anew() -> None:
    """Connection tracking takes it for a packet of the connection, whose destination may be closed by now."""
    with segment(replace(SPEC, only_named=True)) as lan:
        end = time.monotonic() + 1
        with socket.socket(fileno=os.dup(lan.interior.netlink)) as netlink:
            nftables.open_addresses(netlink, [(IPv4Address(PUBLIC), 1)])
        open_connection(lan)
        wait_until(lambda: time.monotonic() > end, "the address is over")
        lan.judge(going_on(), leaving=1)
        _, left = lan.judge(ip(PUBLIC) / TCP(sport=40000, dport=443, flags="S", seq=5000))
        assert left == []
        assert lan.counters()["denied_name"] == 1


def test_connection_ends_when_its_far_end_becomes_the_hosts(lan: Segment) -> None:
    """What listens at the host's addresses is not for guests, whoever had the address before."""
    open_connection(lan)
    lan.become_hosts(IPv4Network(PUBLIC))
    back, left = lan.judge(going_on())
    assert left == []
    assert [kind_of(reply) for reply in back] == ["rst"]
    assert lan.counters()["denied_host"] == 1


def test_datagrams_stop_when_their_far_end_becomes_the_hosts(lan: Segment) -> None:
    question = ip(PUBLIC) / UDP(sport=5, dport=99)
    lan.judge(question, leaving=1)
    lan.send_from_nat(IP(src=PUBLIC, dst="10.0.3.100") / UDP(sport=99, dport=5) / b"answer")
    lan.judge(question, leaving=1)
    lan.become_hosts(IPv4Network(PUBLIC))
    back, left = lan.judge(question)
    assert left == []
    assert [kind_of(reply) for reply in back] == ["icmp"]
    lan.become_hosts()
    lan.judge(question, leaving=1)


def test_forwarded_connection_goes_on_when_either_end_becomes_the_hosts() -> None:
    """A forward is the operator's word, the host's own addresses included."""
    forward = Forward("tcp", IPv4Address("1.1.1.1"), 80, IPv4Address(PUBLIC), 2525)
    with segment(replace(SPEC, forwards=(forward,))) as lan:
        open_connection(lan, "1.1.1.1", 80)
        lan.become_hosts(IPv4Network(PUBLIC), IPv4Network("1.1.1.1"))
        lan.judge(going_on("1.1.1.1", 80), leaving=1)


def test_connection_to_an_allowed_address_goes_on_when_it_becomes_the_hosts() -> None:
    with segment(replace(SPEC, allowed=networks(f"{PUBLIC}/32"))) as lan:
        open_connection(lan)
        lan.become_hosts(IPv4Network(PUBLIC))
        lan.judge(going_on(), leaving=1)


@pytest.mark.parametrize("kind", [3, 4, 5, 11, 12])
@pytest.mark.parametrize("target", [PUBLIC, "10.0.2.2"])
def test_icmp_error_of_a_guest_goes_nowhere_and_is_no_denied_packet(
    lan: Segment, target: str, kind: int
) -> None:
    """Whether it quotes a flow that lives or an answer that came too late."""
    lan.judge(ip(PUBLIC) / UDP(sport=5, dport=99), leaving=1)
    before = lan.counters()
    quoted = IP(src=target, dst=str(GUEST)) / UDP(sport=99, dport=5)
    back, left = lan.judge(ip(target) / ICMP(type=kind, code=3) / quoted)
    assert back == left == []
    moved = {name: packets for name, packets in lan.counters().items() if packets != before[name]}
    assert moved.keys() <= {"icmp_errors"}  # NAT drops a redirect about a flow of its own before that


def test_hosts_are_replaced_as_a_whole(lan: Segment) -> None:
    with socket.socket(fileno=os.dup(lan.interior.netlink)) as netlink:
        netlink.settimeout(5)
        for hosts in ([], ["93.184.216.34/32"], ["93.184.216.0/25", "93.184.216.128/25", "255.0.0.0/8"]):
            nftables.replace_host_set(netlink, [IPv4Network(host) for host in hosts])
            back, left = lan.judge(syn(PUBLIC), leaving=0 if hosts else 1)
            assert len(left) == (0 if hosts else 1)
            assert [kind_of(reply) for reply in back] == (["rst"] if hosts else [])


def test_whole_fragmented_datagram_leaves_and_a_flood_of_fragments_is_limited(lan: Segment) -> None:
    parts = fragment(ip(PUBLIC) / UDP(sport=5, dport=99) / Raw(b"x" * 4000), fragsize=1400)
    _, left = lan.judge(*parts, leaving=1)
    assert sum(len(p[IP].payload) for p in left) == 4008
    flood = [IP(src=str(GUEST), dst=PUBLIC, id=n, flags="MF") / UDP() / Raw(b"x" * 56) for n in range(1000)]
    lan.judge(*flood)
    assert lan.counters()["limit_fragments"] > 0


def test_nothing_from_the_nat_side_reaches_the_guest_unasked(lan: Segment) -> None:
    for packet in (
        IP(src=PUBLIC, dst="10.0.3.100") / TCP(sport=80, dport=40000, flags="S"),
        IP(src=PUBLIC, dst=str(GUEST)) / UDP(sport=53, dport=5),
        IP(src="10.0.3.2", dst="10.0.2.2") / UDP(sport=5, dport=53) / DNS(qd=DNSQR(qname="a.test")),
    ):
        lan.send_from_nat(packet)
    back, left = lan.judge()
    assert back == []
    assert left == []


def test_answer_from_the_nat_side_reaches_the_guest(lan: Segment) -> None:
    _, left = lan.judge(ip(PUBLIC) / UDP(sport=5, dport=99), leaving=1)
    lan.send_from_nat(IP(src=PUBLIC, dst="10.0.3.100") / UDP(sport=99, dport=left[0][UDP].sport) / b"answer")
    back, _ = lan.judge()
    assert [(p[IP].src, p[IP].dst, p[Raw].load) for p in back] == [(PUBLIC, str(GUEST), b"answer")]


def test_arp_is_answered_for_the_gateway_only(lan: Segment) -> None:
    for address in ("10.0.2.2", "10.0.2.15", "10.0.2.77", "10.0.3.100", str(HOST)):
        lan.send(ARP(op=1, hwsrc=GUEST_MAC, psrc=str(GUEST), pdst=address), target="ff:ff:ff:ff:ff:ff")
    lan.send(ARP(op=1, hwsrc=GUEST_MAC, psrc="0.0.0.0", pdst="10.0.2.2"), target="ff:ff:ff:ff:ff:ff")
    answers = []
    for frame in lan.read_guest(5.0):
        if ARP in frame and frame[ARP].op == 2:
            answers.append((frame[ARP].psrc, frame[ARP].pdst))
    assert set(answers) == {("10.0.2.2", str(GUEST)), ("10.0.2.2", "0.0.0.0")}


def test_gateway_asks_for_the_guest_under_its_own_address_only() -> None:
    """Also before it knows the guest, and when what it has to send is a refusal by another address."""
    with segment(SPEC, known_guest=False) as lan:
        lan.send(syn("10.0.3.100"))
        frames = lan.read_guest(5.0)
        assert [(f[ARP].psrc, f[ARP].pdst) for f in frames if ARP in f] == [("10.0.2.2", str(GUEST))]
        lan.send(ARP(op=2, hwsrc=GUEST_MAC, psrc=str(GUEST), pdst="10.0.2.2"))
        assert [kind_of(f) for f in lan.read_guest(5.0) if ARP not in f] == ["rst"]


def test_ipv6_gets_no_answer_and_does_not_leave(lan: Segment) -> None:
    ping = IPv6(src="fe80::15", dst="ff02::1") / ICMPv6EchoRequest()
    solicitation = IPv6(src="fe80::15", dst="2001:db8::1") / UDP(dport=53)
    lan.send(ping, target="33:33:00:00:00:01")
    back, left = lan.judge(solicitation)
    assert back == []
    assert left == []


def test_namespace_has_two_addresses_and_none_of_ipv6(lan: Segment) -> None:
    def addresses() -> set[str]:
        with IPRoute() as route:
            return {entry.get("IFA_ADDRESS") for entry in route.get_addr()}

    assert inside(lan, addresses) == {"10.0.2.2", "10.0.3.100"}


def test_dhcp_reaches_the_gateways_socket(lan: Segment) -> None:
    discover = (
        IP(src="0.0.0.0", dst="255.255.255.255")
        / UDP(sport=68, dport=67)
        / BOOTP(chaddr=b"\x02\0\0\0\0\x15", xid=7)
        / DHCP(options=[("message-type", "discover"), "end"])
    )
    lan.send(discover, target="ff:ff:ff:ff:ff:ff")
    lan.judge()
    assert BOOTP(os.read(lan.interior.dhcp, 2048)).xid == 7


def test_gateways_own_broadcast_is_not_counted_as_a_guests(lan: Segment) -> None:
    """DHCP is answered by broadcast, of which the kernel gives the sender's host a copy (ip(7))."""
    with socket.socket(fileno=os.dup(lan.interior.dhcp)) as dhcp:
        dhcp.sendto(b"offer", ("255.255.255.255", 68))
    assert any(UDP in frame and frame[UDP].dport == 68 for frame in lan.read_guest(5.0))
    lan.judge()
    assert {name for name, packets in lan.counters().items() if packets and name != "ipv6"} == set()


def test_neighbour_table_knows_no_more_than_guest_and_nat() -> None:
    """A guest that answers for a whole subnet must not fill the table that all namespaces share."""
    with segment(SPEC) as lan:
        for last in range(3, 250):
            for operation in (1, 2):
                claim = ARP(op=operation, hwsrc=f"02:00:00:00:01:{last:02x}", psrc=f"10.0.2.{last}")
                claim.pdst = "10.0.2.2"
                lan.send(claim, target="ff:ff:ff:ff:ff:ff")
        lan.judge(*(syn(f"10.0.2.{last}") for last in range(3, 250)))

        def neighbours() -> set[str]:
            with IPRoute() as route:
                return {entry.get("NDA_DST") for entry in route.get_neighbours(family=2)}

        known = inside(lan, neighbours)
    assert known <= {"10.0.2.15", "10.0.3.2"}


def test_nat_process_is_told_of_its_peer_before_it_has_to_ask(lan: Segment) -> None:
    """A gratuitous ARP (RFC 5227 section 3); the NAT stays a permanent neighbour."""
    inside(lan, link.announce_nat_client)
    _, (told, *_) = lan.judge(leaving=1)
    assert (told[ARP].psrc, told[ARP].pdst, told[ARP].hwsrc) == ("10.0.3.100", "10.0.3.100", lan.nat_mac)

    def permanent() -> set[tuple[str, str]]:
        with IPRoute() as route:
            entries = route.get_neighbours(family=2, state=0x80)  # NUD_PERMANENT
            return {(entry.get("NDA_DST"), entry.get("NDA_LLADDR")) for entry in entries}

    assert inside(lan, permanent) == {("10.0.3.2", "52:55:0a:00:03:02")}


def test_frames_that_are_no_packets_are_harmless(lan: Segment) -> None:
    for frame in (
        b"\0" * 14,
        b"\xff" * 2048,
        bytes(Ether(dst="52:55:0a:00:02:02") / Raw(b"\x45" + b"\xff" * 60)),
        bytes(Ether(dst="52:55:0a:00:02:02", type=0x8100) / Raw(b"\0\1\x08\0" + b"\x45" * 40)),
    ):
        os.write(lan.interior.tap, frame)
    back, left = lan.judge()
    assert back == []
    assert left == []


OPEN = SegmentSpec(max_tcp_flows=0, max_udp_flows=0)


def test_allowed_prefix_does_not_open_loopback_lan_or_nat() -> None:
    with segment(replace(OPEN, allowed=networks("0.0.0.0/0")), HOSTS) as lan:
        back, left = lan.judge(*(syn(to) for to in ("127.0.0.1", "0.0.0.0", "10.0.2.77", "10.0.3.2")))
        assert left == []
        assert [kind_of(reply) for reply in back] == ["rst"] * 4


PORT_RULES = replace(
    OPEN,
    denied_tcp_ports=((8050, 8060), (8055, 8070), (80, 80)),
    allowed_tcp_ports=((8000, 8100), (443, 443), (80, 80), (444, 444)),
    denied_udp_ports=((53, 53), (54, 54)),
    forwards=(
        Forward("tcp", IPv4Address("1.1.1.1"), 443, IPv4Address("10.9.9.9"), 80),
        Forward("tcp", IPv4Address("1.1.1.1"), 22, IPv4Address("10.9.9.9"), 443),
        Forward("udp", IPv4Address("1.1.1.1"), 53, IPv4Address("10.9.9.9"), 5353),
    ),
)


def test_ports_are_exact_denied_first_and_those_the_guest_dialled() -> None:
    tcp = [1, 79, 80, 81, 442, 443, 444, 445, 7999, 8000, 8049, 8050, 8070, 8071, 8100, 8101, 65535]
    with segment(PORT_RULES, allow_ping=True) as lan:
        _, left = lan.judge(*(syn(PUBLIC, port) for port in tcp), leaving=6)
        assert [p[TCP].dport for p in left] == [443, 444, 8000, 8049, 8071, 8100]
        _, left = lan.judge(*(ip(PUBLIC) / UDP(sport=9, dport=n) for n in (1, 52, 53, 54, 55)), leaving=3)
        assert [p[UDP].dport for p in left] == [1, 52, 55]
        dialled = [syn("1.1.1.1", 443), syn("1.1.1.1", 22), ip("1.1.1.1") / UDP(sport=9, dport=53)]
        _, left = lan.judge(*dialled, ip(PUBLIC) / ICMP(), leaving=2)
        assert [p[IP].dst for p in left] == ["10.9.9.9", PUBLIC]
        assert lan.counters()["denied_port"] == 11 + 2 + 2


def test_port_lists_of_no_port_deny_all_and_leave_the_gateway_alone() -> None:
    spec = replace(OPEN, allowed_tcp_ports=(), allowed_udp_ports=())
    with segment(spec, allow_ping=True) as lan:
        beyond = [
            syn(PUBLIC, 1),
            syn(PUBLIC, 65535),
            ip(PUBLIC) / UDP(sport=9, dport=53),
            ip(PUBLIC) / ICMP(),
        ]
        query = DNS(qd=DNSQR(qname="a.test"))
        _, left = lan.judge(*beyond, ip(str(GATEWAY)) / UDP(sport=9, dport=53) / query)
        assert left == []
        assert {key: n for key, n in lan.counters().items() if n} == {"denied_port": 4}


def test_list_of_udp_ports_refuses_ping_which_has_none() -> None:
    for ports, leaving in ((((1, 65535),), 1), (((1, 100), (101, 65535)), 1), (((1, 65534),), 0)):
        with segment(replace(OPEN, allowed_udp_ports=ports), allow_ping=True) as lan:
            _, left = lan.judge(ip(PUBLIC) / ICMP(), leaving=leaving)
            assert len(left) == leaving
