"""Frames that come before the NAT process can take them."""

from scapy.layers.dhcp import BOOTP
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet

from aero_l2.session.early import MAX_FRAMES, EarlyFrames
from netns.link import NAT_QUEUE


def frames(*packets: Packet) -> list[bytes]:
    return [bytes(Ether() / packet) for packet in packets]


def test_only_what_leaves_the_lan_waits_and_keeps_its_order() -> None:
    early = EarlyFrames()
    local = frames(
        ARP(),
        IP(src="0.0.0.0", dst="255.255.255.255") / UDP(dport=67) / BOOTP(),
        IP(dst="10.0.2.2") / UDP(dport=53),
        IP(dst="10.0.2.255") / UDP(dport=137),
        IPv6(),
    )
    leaving = frames(
        IP(dst="8.8.8.8") / TCP(), IP(dst="10.0.3.2") / ICMP(), IP(dst="9.9.9.9", options=b"\1" * 4) / UDP()
    )
    tagged = frames(Dot1Q(vlan=1) / IP(dst="8.8.8.8"))
    mixed = [frame for pair in zip(local, leaving, strict=False) for frame in pair] + local[3:] + tagged
    assert early.sort([*mixed, b"", b"short"]) == ([*local, *tagged, b"", b"short"], 0)
    assert early.take() == leaving
    assert early.take() == []


def test_all_that_waited_fit_into_the_queue_of_the_nat_process() -> None:
    assert MAX_FRAMES < NAT_QUEUE


def test_only_so_many_wait() -> None:
    early = EarlyFrames()
    many = frames(*[IP(dst="8.8.8.8", id=number) for number in range(MAX_FRAMES + 5)])
    assert early.sort(many) == ([], 5)
    assert early.take() == many[:MAX_FRAMES]
