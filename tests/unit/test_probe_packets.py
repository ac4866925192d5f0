"""Packets of the probe's guest, written and read, held to scapy's."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from aero_l2.probe import packets
from aero_l2.probe.packets import Arp, Datagram, Echo, FromTcp, Segment, Unreachable, Way

OURS, THEIRS = b"\x02\0\0\0\0\x0f", bytes.fromhex("52550a000202")
OUR_MAC, THEIR_MAC = OURS.hex(":"), THEIRS.hex(":")
GUEST, GATEWAY, WEB = IPv4Address("10.0.2.15"), IPv4Address("10.0.2.2"), IPv4Address("93.184.216.34")
WAY = Way(OURS, GUEST, THEIRS, WEB)
PORTS = st.integers(1, 65535)
NUMBERS = st.integers(0, 2**32 - 1)


def incoming(packet: Packet, source: IPv4Address = WEB) -> bytes:
    """A frame of the LAN for us, as scapy writes it."""
    return bytes(Ether(src=THEIR_MAC, dst=OUR_MAC) / IP(src=str(source), dst=str(GUEST)) / packet)


def rebuilt(frame: bytes) -> Packet:
    """What scapy makes of a frame, checked to have the checksums that scapy would give it."""
    packet = Ether(frame)
    again = Ether(frame)
    for layer in (IP, ICMP, UDP, TCP):
        if layer in again:
            del again[layer].chksum
    assert bytes(Ether(bytes(again))) == bytes(packet)
    return packet


def test_arp_request_and_reply_are_what_scapy_reads() -> None:
    asked = Ether(packets.arp_request(OURS, GUEST, GATEWAY))
    assert (asked.dst, asked[ARP].op, asked[ARP].psrc, asked[ARP].pdst) == (
        "ff:ff:ff:ff:ff:ff",
        1,
        str(GUEST),
        str(GATEWAY),
    )
    said = Ether(packets.arp_reply(OURS, GUEST, Arp(True, THEIRS, GATEWAY, GUEST)))
    assert (said.dst, said[ARP].op, said[ARP].hwsrc, said[ARP].psrc) == (THEIR_MAC, 2, OUR_MAC, str(GUEST))
    assert (said[ARP].hwdst, said[ARP].pdst) == (THEIR_MAC, str(GATEWAY))


@given(NUMBERS, NUMBERS, st.integers(0, 65535), st.binary(max_size=1460), st.sampled_from([None, 1460]))
def test_segments_are_what_scapy_reads(seq: int, ack: int, window: int, data: bytes, mss: int | None) -> None:
    packet = rebuilt(packets.segment(WAY, Segment(50000, 80, seq, ack, 0x18, window, data, mss)))
    tcp = packet[TCP]
    assert (tcp.sport, tcp.dport, tcp.seq, tcp.ack, tcp.window) == (50000, 80, seq, ack, window)
    assert (tcp.flags, bytes(tcp.payload), dict(tcp.options).get("MSS")) == ("PA", data, mss)
    assert (packet[IP].flags, packet[IP].src, packet[IP].dst) == ("DF", str(GUEST), str(WEB))
    assert (packet.src, packet.dst) == (OUR_MAC, THEIR_MAC)


@given(PORTS, PORTS, st.binary(max_size=1472))
def test_datagrams_are_what_scapy_reads(source: int, destination: int, data: bytes) -> None:
    udp = rebuilt(packets.datagram(WAY, source, destination, data))[UDP]
    assert (udp.sport, udp.dport, udp.len, udp.chksum != 0) == (source, destination, 8 + len(data), True)
    assert bytes(udp)[8:] == data


@given(st.integers(0, 65535), st.binary(max_size=1400), st.booleans())
def test_echoes_are_what_scapy_reads(identifier: int, data: bytes, reply: bool) -> None:
    icmp = rebuilt(packets.echo(WAY, identifier, 1, data, reply=reply))[ICMP]
    assert (icmp.type, icmp.code, icmp.id, icmp.seq) == (0 if reply else 8, 0, identifier, 1)
    assert bytes(icmp)[8:] == data


@given(NUMBERS, NUMBERS, st.binary(max_size=1460), st.integers(0, 255))
def test_scapys_segments_are_read(seq: int, ack: int, data: bytes, flags: int) -> None:
    frame = incoming(TCP(sport=80, dport=50000, seq=seq, ack=ack, flags=flags, window=7) / Raw(data))
    assert packets.read(frame, OURS) == FromTcp(WEB, GUEST, Segment(80, 50000, seq, ack, flags, 7, data))


def test_mss_is_read_among_other_options() -> None:
    options = [("NOP", None), ("SAckOK", b""), ("MSS", 1200), ("WScale", 7)]
    got = packets.read(incoming(TCP(sport=80, dport=5, flags="SA", options=options)), OURS)
    assert isinstance(got, FromTcp)
    assert got.segment.mss == 1200


@given(st.binary(max_size=40).filter(lambda options: len(options) % 4 == 0))
def test_options_of_any_bytes_end_nothing(options: bytes) -> None:
    tcp = bytearray(
        struct.pack("!HHIIHHHH", 80, 5, 1, 2, (5 + len(options) // 4) << 12 | 0x12, 9, 0, 0) + options
    )
    frame = Ether(src=THEIR_MAC, dst=OUR_MAC) / IP(src=str(WEB), dst=str(GUEST), proto=6) / Raw(bytes(tcp))
    reread = Ether(bytes(frame))
    del reread[TCP].chksum
    fixed = bytes(frame)[:34] + bytes(reread)[34:]
    got = packets.read(fixed, OURS)
    assert got is None or isinstance(got, FromTcp)


def test_scapys_datagrams_and_echoes_are_read() -> None:
    assert packets.read(incoming(UDP(sport=53, dport=5) / b"abc"), OURS) == Datagram(
        WEB, GUEST, 53, 5, b"abc"
    )
    without = UDP(sport=53, dport=5, chksum=0) / b"abc"
    assert packets.read(incoming(without), OURS) == Datagram(WEB, GUEST, 53, 5, b"abc")
    reply = ICMP(type=0, id=7, seq=1) / b"x"
    assert packets.read(incoming(reply), OURS) == Echo(False, THEIRS, WEB, GUEST, 7, 1, b"x")


@pytest.mark.parametrize(
    ("quoted", "expected"),
    [
        (UDP(sport=50000, dport=7), (17, 50000, 7)),
        (TCP(sport=50001, dport=8), (6, 50001, 8)),
        (ICMP(type=8, id=99, seq=1), (1, 99, 0)),
    ],
    ids=["udp", "tcp", "ping"],
)
def test_icmp_errors_say_what_they_are_about(quoted: Packet, expected: tuple[int, int, int]) -> None:
    about = IP(src=str(GUEST), dst=str(WEB)) / quoted / b"payload"
    got = packets.read(incoming(ICMP(type=3, code=13) / about, GATEWAY), OURS)
    assert got == Unreachable(13, GATEWAY, expected[0], WEB, expected[1], expected[2])


def test_arp_of_scapy_is_read_with_its_padding() -> None:
    asked = Ether(src=THEIR_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(
        op=1, hwsrc=THEIR_MAC, psrc=str(GATEWAY), pdst=str(GUEST)
    )
    assert packets.read(bytes(asked) + bytes(18), OURS) == Arp(True, THEIRS, GATEWAY, GUEST)


GOOD = incoming(TCP(sport=80, dport=50000, flags="A") / b"data")


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        GOOD[:13],
        GOOD[:-1],
        GOOD[:30],
        GOOD + bytes(4000),
        b"\x02\0\0\0\0\x01" + GOOD[6:],
        incoming(UDP(sport=1, dport=2, len=7) / b"abc"),
        incoming(UDP(sport=1, dport=2, len=200) / b"abc"),
        incoming(UDP(sport=1, dport=2, chksum=1) / b"abc"),
        incoming(TCP(sport=1, dport=2, chksum=1)),
        incoming(TCP(sport=1, dport=2, dataofs=4)),
        incoming(TCP(sport=1, dport=2, dataofs=15)),
        incoming(ICMP(type=0, chksum=1)),
        incoming(ICMP(type=3, code=1) / Raw(bytes(27))),
        incoming(ICMP(type=11)),
        bytes(Ether(dst=OUR_MAC) / IP(src=str(WEB), dst=str(GUEST), flags="MF") / UDP() / b"abc"),
        bytes(Ether(dst=OUR_MAC) / IP(src=str(WEB), dst=str(GUEST), frag=4) / UDP() / b"abc"),
        bytes(Ether(dst=OUR_MAC) / IP(src=str(WEB), dst=str(GUEST), chksum=7) / UDP() / b"abc"),
        bytes(Ether(dst=OUR_MAC) / IP(src=str(WEB), dst=str(GUEST), ihl=4) / UDP()),
        bytes(Ether(dst=OUR_MAC) / IP(src=str(WEB), dst=str(GUEST), version=6) / UDP()),
        bytes(Ether(dst=OUR_MAC) / IP(src=str(WEB), dst=str(GUEST), proto=47) / UDP()),
        bytes(Ether(dst=OUR_MAC) / Dot1Q(vlan=5) / IP(src=str(WEB), dst=str(GUEST)) / UDP()),
        bytes(Ether(dst=OUR_MAC) / ARP(op=3)),
        bytes(Ether(dst=OUR_MAC) / ARP(plen=16)),
        bytes(Ether(dst=OUR_MAC, type=0x8847) / Raw(b"\0\0\1\0")),
    ],
)
def test_what_is_damaged_or_not_for_us_is_nothing(frame: bytes) -> None:
    assert packets.read(frame, OURS) is None


@given(st.binary(max_size=1600))
def test_any_bytes_are_survived(data: bytes) -> None:
    for start in (b"", OURS + THEIRS + b"\x08\x00", OURS + THEIRS + b"\x08\x06"):
        packets.read(start + data, OURS)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_no_damaged_byte_of_a_packet_goes_unnoticed(at: int, change: int) -> None:
    damaged = bytearray(GOOD)
    damaged[at] ^= change
    got = packets.read(bytes(damaged), OURS)
    assert got is None or 6 <= at < 12, "only the sender's MAC address is not protected"
