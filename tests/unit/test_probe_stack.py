"""The probe's guest stack: what it answers, what it keeps, and for how much of it there is room."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from aero_l2.probe.packets import BROADCAST
from aero_l2.probe.stack import MAX_CONNECTIONS, MAX_DATAGRAMS, Stack
from aero_l2.probe.tcp import Fault, Ports

MAC, GATEWAY_MAC = "02:00:00:00:00:0f", "52:55:0a:00:02:02"
GUEST, GATEWAY, WEB = IPv4Address("10.0.2.15"), IPv4Address("10.0.2.2"), IPv4Address("93.184.216.34")


def stack(*, leased: bool = True) -> Stack:
    """A guest's stack, by default with the lease."""
    made = Stack(bytes.fromhex(MAC.replace(":", "")))
    if leased:
        made.configure(IPv4Interface("10.0.2.15/24"), GATEWAY, 1500)
    return made


def give(to: Stack, packet: Packet, source: IPv4Address = WEB, destination: str = str(GUEST)) -> list[Packet]:
    """Let an IPv4 packet come; what is answered."""
    frame = Ether(src=GATEWAY_MAC, dst=MAC) / IP(src=str(source), dst=destination) / packet
    to.receive(bytes(frame), 1.0)
    return [Ether(one) for one in to.take_frames()]


def arp_reply(mac: str, address: IPv4Address) -> bytes:
    return bytes(
        Ether(src=mac, dst=MAC) / ARP(op=2, hwsrc=mac, psrc=str(address), hwdst=MAC, pdst=str(GUEST))
    )


def test_arp_for_its_own_address_is_answered_and_for_others_is_not() -> None:
    guest = stack()
    for target, answers in ((GUEST, 1), (IPv4Address("10.0.2.16"), 0)):
        asked = Ether(src=GATEWAY_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(
            op=1, hwsrc=GATEWAY_MAC, psrc=str(GATEWAY), pdst=str(target)
        )
        guest.receive(bytes(asked), 1.0)
        frames = [Ether(one) for one in guest.take_frames()]
        assert [(one.dst, one[ARP].hwsrc, one[ARP].psrc) for one in frames] == [
            (GATEWAY_MAC, MAC, str(GUEST))
        ] * answers


def test_ping_of_its_address_is_answered() -> None:
    (reply,) = give(stack(), ICMP(type=8, id=5, seq=9) / b"abc", GATEWAY)
    assert (reply.dst, reply[IP].dst, reply[ICMP].type, reply[ICMP].id, reply[ICMP].seq) == (
        GATEWAY_MAC,
        str(GATEWAY),
        0,
        5,
        9,
    )
    assert bytes(reply[ICMP].payload) == b"abc"


def test_without_a_lease_nothing_is_answered() -> None:
    assert give(stack(leased=False), ICMP(type=8) / b"abc") == []
    assert give(stack(leased=False), TCP(flags="S")) == []


def test_neighbours_that_were_not_asked_for_are_not_kept() -> None:
    guest = stack()
    for last in range(3, 200):
        guest.receive(arp_reply(f"02:00:00:00:00:{last:02x}", IPv4Address(f"10.0.2.{last}")), 1.0)
    assert guest.neighbour(IPv4Address("10.0.2.3")) is None
    guest.ask_arp(GATEWAY)
    guest.receive(arp_reply(GATEWAY_MAC, GATEWAY), 1.0)
    assert guest.neighbour(GATEWAY) == bytes.fromhex(GATEWAY_MAC.replace(":", ""))


def test_packets_for_elsewhere_go_to_the_gateway() -> None:
    guest = stack()
    guest.ask_arp(GATEWAY)
    guest.receive(arp_reply(GATEWAY_MAC, GATEWAY), 1.0)
    guest.take_frames()
    socket = guest.open_socket(50000)
    guest.send_datagram(socket, WEB, 7, b"x")
    assert [Ether(one).dst for one in guest.take_frames()] == [GATEWAY_MAC]
    assert guest.next_hop(IPv4Address("10.0.2.77")) == IPv4Address("10.0.2.77")


def test_ping_takes_its_own_answer_and_no_other() -> None:
    guest = stack()
    ping = guest.ping(GATEWAY, 7, b"data")
    give(guest, ICMP(type=0, id=8, seq=1) / b"data", GATEWAY)
    give(guest, ICMP(type=0, id=7, seq=1) / b"data", WEB)
    assert ping.reply is None
    give(guest, ICMP(type=0, id=7, seq=1) / b"other", GATEWAY)
    assert ping.reply == b"other"


def test_datagrams_are_kept_for_open_ports_only_and_so_many() -> None:
    guest = stack()
    socket = guest.open_socket(50000)
    give(guest, UDP(sport=53, dport=50001) / b"x")
    give(guest, UDP(sport=53, dport=50000) / b"x", destination="10.0.2.99")
    assert not socket.received
    for _ in range(MAX_DATAGRAMS + 50):
        give(guest, UDP(sport=53, dport=50000) / b"x")
    assert len(socket.received) == MAX_DATAGRAMS


def test_dhcp_is_heard_before_there_is_an_address() -> None:
    guest = stack(leased=False)
    socket = guest.open_socket(68)
    give(guest, UDP(sport=67, dport=68) / b"offer", GATEWAY)
    give(guest, UDP(sport=67, dport=68) / b"broadcast", GATEWAY, str(BROADCAST))
    assert [one.data for one in socket.received] == [b"offer", b"broadcast"]


@pytest.mark.parametrize(
    ("code", "fault"), [(13, Fault.PROHIBITED), (10, Fault.PROHIBITED), (1, Fault.UNREACHABLE)]
)
def test_icmp_error_ends_the_connect_that_it_is_about(code: int, fault: Fault) -> None:
    guest = stack()
    connection = guest.connect(WEB, Ports(50000, 80), 1, 0.0)
    about = IP(src=str(GUEST), dst=str(WEB)) / TCP(sport=50000, dport=81)
    give(guest, ICMP(type=3, code=code) / about, GATEWAY)
    assert connection.fault is None
    about[TCP].dport = 80
    give(guest, ICMP(type=3, code=code) / about, GATEWAY)
    assert connection.fault is fault


def test_icmp_error_does_not_end_an_open_connection() -> None:
    guest = stack()
    connection = guest.connect(WEB, Ports(50000, 80), 1, 0.0)
    give(guest, TCP(sport=80, dport=50000, seq=5, ack=2, flags="SA"))
    assert connection.is_established
    give(guest, ICMP(type=3, code=1) / IP(src=str(GUEST), dst=str(WEB)) / TCP(sport=50000, dport=80), GATEWAY)
    assert connection.fault is None


def test_segment_of_no_connection_is_reset_unless_it_is_a_reset() -> None:
    guest = stack()
    (reset,) = give(guest, TCP(sport=80, dport=50000, seq=5, ack=99, flags="A"))
    assert (reset[TCP].flags, reset[TCP].seq) == ("R", 99)
    (reset,) = give(guest, TCP(sport=80, dport=50000, seq=5, flags="S"))
    assert (reset[TCP].flags, reset[TCP].ack) == ("RA", 6)
    assert give(guest, TCP(sport=80, dport=50000, seq=5, flags="R")) == []


def test_connections_are_bounded() -> None:
    guest = stack()
    for number in range(MAX_CONNECTIONS + 10):
        guest.connect(WEB, Ports(50000 + number, 80), 1, 0.0)
    assert len(guest.take_frames()) <= MAX_CONNECTIONS + 10
    guest.tick(100.0)
    assert len(guest.take_frames()) == MAX_CONNECTIONS


@given(st.lists(st.binary(max_size=400), max_size=20), st.booleans())
def test_any_frames_are_survived(frames: list[bytes], leased: bool) -> None:
    guest = stack(leased=leased)
    guest.open_socket(68)
    guest.connect(WEB, Ports(50000, 80), 1, 0.0)
    for data in frames:
        guest.receive(data, 1.0)
        guest.receive(bytes(Ether(src=GATEWAY_MAC, dst=MAC) / Raw(data)), 1.0)
        for protocol in (1, 6, 17):
            packet = IP(src=str(WEB), dst=str(GUEST), proto=protocol) / Raw(data)
            guest.receive(bytes(Ether(src=GATEWAY_MAC, dst=MAC) / packet), 1.0)
        guest.flush()
    assert len(guest.take_frames()) <= 1 + 5 * len(frames)
