"""Ethernet frames of a guest, written and read. Pure.

Written by dpkt. Read by us, since dpkt trusts what it reads: a frame from the network can make it raise
what is no error of its own (an MPLS label at the end), recurse a thousand deep (ICMP errors that quote ICMP
errors) and guess (802.3, ISL), and it verifies neither lengths nor checksums.

RFC 826 (ARP), RFC 791 (IPv4), RFC 792 (ICMP), RFC 768 (UDP), RFC 9293 §3.1 (TCP).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from dpkt.arp import ARP, ARP_OP_REPLY, ARP_OP_REQUEST
from dpkt.ethernet import ETH_TYPE_ARP, ETH_TYPE_IP, Ethernet
from dpkt.icmp import ICMP, ICMP_ECHO, ICMP_ECHOREPLY, ICMP_UNREACH
from dpkt.ip import IP, IP_PROTO_ICMP, IP_PROTO_TCP, IP_PROTO_UDP
from dpkt.tcp import TCP, TH_SYN
from dpkt.udp import UDP

from aero_l2.wire.checksum import internet_checksum

BROADCAST_MAC: Final = b"\xff" * 6
BROADCAST: Final = IPv4Address("255.255.255.255")
UNSPECIFIED: Final = IPv4Address(0)
MAX_FRAME: Final = 2048
"""A longer one is none of a LAN with an MTU of 1500."""

_ETHERNET_BYTES: Final = 14
_IPV4: Final = struct.Struct("!BBHHHBBH4s4s")
_ARP: Final = struct.Struct("!HHBBH6s4s6s4s")
_ARP_OF_IPV4: Final = (1, 0x0800, 6, 4)
_TCP: Final = struct.Struct("!HHIIHHHH")
_UDP: Final = struct.Struct("!HHHH")
_FRAGMENT: Final = 0x3FFF  # more fragments, or an offset
_OPTION_END, _OPTION_NOP, _OPTION_MSS = 0, 1, 2
_NOTHING: Final = b"\0\0"


@dataclass(frozen=True, slots=True)
class Arp:
    """An ARP message; mac and address: the sender's."""

    is_request: bool
    mac: bytes
    address: IPv4Address
    target: IPv4Address


@dataclass(frozen=True, slots=True)
class Echo:
    """An ICMP echo request or reply; mac: who brought it."""

    is_request: bool
    mac: bytes
    source: IPv4Address
    destination: IPv4Address
    identifier: int
    sequence: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Unreachable:
    """An ICMP error of type 3 about a packet of ours.

    code: RFC 792, RFC 1812 §5.2.7.1. by: who says so. local, remote: ports, or (echo) identifier and 0.
    """

    code: int
    by: IPv4Address
    protocol: int
    destination: IPv4Address
    local: int
    remote: int


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP datagram that came."""

    source: IPv4Address
    destination: IPv4Address
    source_port: int
    destination_port: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment, either way; flags as on the wire, mss: of its option, None where there is none."""

    source_port: int
    destination_port: int
    seq: int
    ack: int
    flags: int
    window: int
    data: bytes = b""
    mss: int | None = None


@dataclass(frozen=True, slots=True)
class FromTcp:
    """A segment that came, and from and to whom."""

    source: IPv4Address
    destination: IPv4Address
    segment: Segment


Packet = Arp | Echo | Unreachable | Datagram | FromTcp


@dataclass(frozen=True, slots=True)
class Way:
    """Both ends of a packet to be sent: MAC and IPv4 addresses."""

    source_mac: bytes
    source: IPv4Address
    destination_mac: bytes
    destination: IPv4Address


# -- writing


def arp_request(mac: bytes, address: IPv4Address, target: IPv4Address) -> bytes:
    """Who has ``target``? Tell ``address``."""
    asked = ARP(op=ARP_OP_REQUEST, sha=mac, spa=address.packed, tha=bytes(6), tpa=target.packed)
    return bytes(Ethernet(src=mac, dst=BROADCAST_MAC, type=ETH_TYPE_ARP, data=asked))


def arp_reply(mac: bytes, address: IPv4Address, to: Arp) -> bytes:
    """``address`` is at ``mac``."""
    said = ARP(op=ARP_OP_REPLY, sha=mac, spa=address.packed, tha=to.mac, tpa=to.address.packed)
    return bytes(Ethernet(src=mac, dst=to.mac, type=ETH_TYPE_ARP, data=said))


def echo(way: Way, identifier: int, sequence: int, data: bytes, *, reply: bool = False) -> bytes:
    """An ICMP echo request, or the answer to one."""
    body = ICMP.Echo(id=identifier, seq=sequence, data=data)
    return _frame(way, IP_PROTO_ICMP, ICMP(type=ICMP_ECHOREPLY if reply else ICMP_ECHO, data=body))


def datagram(way: Way, source_port: int, destination_port: int, data: bytes) -> bytes:
    """A UDP datagram."""
    udp = UDP(sport=source_port, dport=destination_port, ulen=_UDP.size + len(data), data=data)
    return _frame(way, IP_PROTO_UDP, udp)


def segment(way: Way, sent: Segment) -> bytes:
    """A TCP segment."""
    options = b"" if sent.mss is None else struct.pack("!BBH", _OPTION_MSS, 4, sent.mss)
    tcp = TCP(
        sport=sent.source_port,
        dport=sent.destination_port,
        seq=sent.seq,
        ack=sent.ack,
        win=sent.window,
        opts=options,
        data=sent.data,
    )
    tcp.off = (_TCP.size + len(options)) // 4
    tcp.flags = sent.flags
    return _frame(way, IP_PROTO_TCP, tcp)


def _frame(way: Way, protocol: int, payload: ICMP | UDP | TCP) -> bytes:
    """What is never fragmented needs no identification (RFC 6864 §4.1)."""
    packet = IP(src=way.source.packed, dst=way.destination.packed, p=protocol, df=1, data=payload)
    return bytes(Ethernet(src=way.source_mac, dst=way.destination_mac, type=ETH_TYPE_IP, data=packet))


# -- reading


def read(frame: bytes, mac: bytes) -> Packet | None:
    """What a frame for ``mac`` holds; None if it is for others, damaged, a fragment, or no use."""
    if not _ETHERNET_BYTES <= len(frame) <= MAX_FRAME or frame[:6] not in (mac, BROADCAST_MAC):
        return None
    kind = int.from_bytes(frame[12:14], "big")
    if kind == ETH_TYPE_IP:
        return _ipv4(frame[6:12], frame[_ETHERNET_BYTES:])
    return _arp(frame[_ETHERNET_BYTES:]) if kind == ETH_TYPE_ARP else None


def _arp(data: bytes) -> Arp | None:
    if len(data) < _ARP.size:
        return None
    *kind, operation, mac, address, _, target = _ARP.unpack_from(data)
    if tuple(kind) != _ARP_OF_IPV4 or operation not in (ARP_OP_REQUEST, ARP_OP_REPLY):
        return None
    return Arp(operation == ARP_OP_REQUEST, mac, IPv4Address(address), IPv4Address(target))


def _ipv4(mac: bytes, data: bytes) -> Packet | None:
    header = _header_bytes(data)
    if header is None:
        return None
    _, _, total, _, fragment, _, protocol, _, source, destination = _IPV4.unpack_from(data)
    if not header <= total <= len(data) or fragment & _FRAGMENT:
        return None
    if internet_checksum(data[:header]) != _NOTHING:
        return None
    ends = IPv4Address(source), IPv4Address(destination)
    body = data[header:total]
    if protocol == IP_PROTO_ICMP:
        return _icmp(mac, *ends, body)
    reader = {IP_PROTO_UDP: _udp, IP_PROTO_TCP: _tcp}.get(protocol)
    return None if reader is None else reader(*ends, body)


def _header_bytes(data: bytes) -> int | None:
    """Length of the IPv4 header that ``data`` begins with, None where there is none."""
    if len(data) < _IPV4.size or data[0] >> 4 != 4:
        return None
    length = (data[0] & 15) * 4
    return length if _IPV4.size <= length <= len(data) else None


def _is_whole(source: IPv4Address, destination: IPv4Address, protocol: int, data: bytes) -> bool:
    """Whether the checksum over pseudo-header and data holds (RFC 9293 §3.1, RFC 768)."""
    pseudo = source.packed + destination.packed + struct.pack("!HH", protocol, len(data))
    return internet_checksum(pseudo + data + bytes(len(data) % 2)) == _NOTHING


def _udp(source: IPv4Address, destination: IPv4Address, data: bytes) -> Datagram | None:
    if len(data) < _UDP.size:
        return None
    source_port, destination_port, length, checksum = _UDP.unpack_from(data)
    if not _UDP.size <= length <= len(data):
        return None
    data = data[:length]
    if checksum and not _is_whole(source, destination, IP_PROTO_UDP, data):
        return None
    return Datagram(source, destination, source_port, destination_port, data[_UDP.size :])


def _tcp(source: IPv4Address, destination: IPv4Address, data: bytes) -> FromTcp | None:
    if len(data) < _TCP.size or not _is_whole(source, destination, IP_PROTO_TCP, data):
        return None
    source_port, destination_port, seq, ack, bits, window, _, _ = _TCP.unpack_from(data)
    header = (bits >> 12) * 4
    if not _TCP.size <= header <= len(data):
        return None
    flags = bits & 0xFF
    mss = _mss(data[_TCP.size : header]) if flags & TH_SYN else None
    came = Segment(source_port, destination_port, seq, ack, flags, window, data[header:], mss)
    return FromTcp(source, destination, came)


def _mss(options: bytes) -> int | None:
    """The MSS option's value (RFC 9293 §3.2); None where there is none or the options are damaged."""
    position = 0
    while position < len(options) and options[position] != _OPTION_END:
        if options[position] == _OPTION_NOP:
            position += 1
            continue
        length = options[position + 1] if position + 1 < len(options) else 0
        if length < 2:
            return None
        if options[position] == _OPTION_MSS and length == 4 and position + 4 <= len(options):
            return int.from_bytes(options[position + 2 : position + 4], "big")
        position += length
    return None


def _icmp(
    mac: bytes, source: IPv4Address, destination: IPv4Address, data: bytes
) -> Echo | Unreachable | None:
    if len(data) < 8 or internet_checksum(data + bytes(len(data) % 2)) != _NOTHING:
        return None
    kind, code = data[0], data[1]
    if kind in (ICMP_ECHO, ICMP_ECHOREPLY) and code == 0:
        identifier, sequence = struct.unpack_from("!HH", data, 4)
        return Echo(kind == ICMP_ECHO, mac, source, destination, identifier, sequence, data[8:])
    return _unreachable(code, source, data[8:]) if kind == ICMP_UNREACH else None


def _unreachable(code: int, by: IPv4Address, quoted: bytes) -> Unreachable | None:
    """An error quotes the header and at least eight bytes of the packet it is about (RFC 792)."""
    header = _header_bytes(quoted)
    if header is None or len(quoted) < header + 8:
        return None
    protocol, destination = quoted[9], IPv4Address(quoted[16:20])
    local, remote = struct.unpack_from("!HH", quoted, header)
    if protocol == IP_PROTO_ICMP:
        local, remote = int.from_bytes(quoted[header + 4 : header + 6], "big"), 0
    elif protocol not in (IP_PROTO_TCP, IP_PROTO_UDP):
        return None
    return Unreachable(code, by, protocol, destination, local, remote)
