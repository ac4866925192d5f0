"""What a hostile guest sends: floods as WebSocket bytes that are made before they are sent.

Each kind is a list of frames that is sent round and round. Addresses are those of the test world.
"""

import random
import struct
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address
from itertools import islice

from support import addresses as at

_MAC = bytes.fromhex("02000000000f")
_GATEWAY_MAC = bytes.fromhex(at.GATEWAY_MAC.replace(":", ""))
_ALL = b"\xff" * 6
_GUEST, _GATEWAY, _WEB, _CDN = (IPv4Address(a).packed for a in (at.GUEST, at.GATEWAY, at.WEB, at.CDN))
_ICMP, _TCP, _UDP = 1, 6, 17
_MORE = 0x2000
_SEED = 5  # the same flood in every run
_MASK = b"\0\0\0\0"  # RFC 6455 section 5.3 wants unpredictable ones, which protect only caches on the way
_MESSAGE = b"\xa2\x03\x00\x00"
MANY = 20_000


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packet(protocol: int, to: bytes, body: bytes, *, number: int = 0, fragment: int = 0) -> bytes:
    """An Ethernet frame with an IPv4 packet of the guest (RFC 791). fragment: flags and offset / 8."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), number, fragment, 64, protocol, 0)
    check = checksum(head + _GUEST + to)
    head = head[:10] + struct.pack("!H", check)
    return _GATEWAY_MAC + _MAC + b"\x08\x00" + head + _GUEST + to + body


def datagram(to: bytes, source: int, port: int, data: bytes = b"flood") -> bytes:
    """UDP without a checksum (RFC 768)."""
    return packet(_UDP, to, struct.pack("!HHHH", source, port, 8 + len(data), 0) + data)


def segment(to: bytes, source: int, port: int, flags: int = 0x02) -> bytes:
    """A TCP segment without data (RFC 9293 section 3.1); a SYN by default."""
    body = struct.pack("!HHIIBBHHH", source, port, 1, 0, 0x50, flags, 65535, 0, 0)
    check = checksum(_GUEST + to + struct.pack("!HH", _TCP, len(body)) + body)
    return packet(_TCP, to, body[:16] + struct.pack("!H", check) + body[18:])


def echo(to: bytes, number: int, data: bytes = bytes(32)) -> bytes:
    """An ICMP echo request (RFC 792)."""
    body = struct.pack("!BBHHH", 8, 0, 0, 1, number) + data
    return packet(_ICMP, to, body[:2] + struct.pack("!H", checksum(body)) + body[4:])


def query(name: bytes, number: int, source: int) -> bytes:
    """A DNS question for an A record, to the gateway (RFC 1035 section 4.1)."""
    labels = b"".join(bytes([len(label)]) + label for label in name.split(b"."))
    wire = struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"
    return datagram(_GATEWAY, source, 53, wire)


def masked(frame: bytes) -> bytes:
    """A FRAME message as a client's WebSocket frame."""
    size = len(frame) + 4
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack("!H", size)
    return b"\x82" + length + _MASK + _MESSAGE + frame


def _public(chance: random.Random) -> bytes:
    """Somewhere in the test internet where nobody is."""
    return bytes((chance.choice((23, 81, 130, 142)), *chance.randbytes(3)))


def _port_scan() -> Iterator[bytes]:
    yield from (segment(_WEB, 40000, port) for port in range(1, 65536) if port != 25)


def _host_scan() -> Iterator[bytes]:
    yield from (segment(struct.pack("!I", (81 << 24) + host), 40000, 443) for host in range(1, MANY))


def _new_flows() -> Iterator[bytes]:
    """Connections to a service that takes them, and is left alone with them."""
    yield from (segment(_WEB, source, at.DISCARD_PORT) for source in range(20_000, 30_000))


def _port_rotation() -> Iterator[bytes]:
    yield from (datagram(_WEB, source, at.DISCARD_PORT) for source in range(1, 65536, 3))


def _random_datagrams() -> Iterator[bytes]:
    chance = random.Random(_SEED)
    for _ in range(MANY):
        yield datagram(_public(chance), chance.randrange(1, 65536), chance.randrange(1, 65536))


def _large_datagrams() -> Iterator[bytes]:
    """One flow, as fast as the line takes it."""
    yield from [datagram(_WEB, 5000, at.DISCARD_PORT, bytes(1400))] * 500


def _denied() -> Iterator[bytes]:
    chance = random.Random(_SEED)
    for _ in range(MANY):
        private = bytes((10, 1, *chance.randbytes(2)))
        yield datagram(private, 5000, 5000) if chance.random() < 0.5 else segment(private, 5000, 80)


def _unfinished_fragments() -> Iterator[bytes]:
    yield from (packet(_UDP, _WEB, bytes(1400), number=n, fragment=_MORE) for n in range(2000))


def _tiny_fragments() -> Iterator[bytes]:
    for number in range(500):
        for piece in range(20):
            more = _MORE if piece < 19 else 0
            yield packet(_UDP, _WEB, bytes(8), number=number, fragment=more | piece)


def _overlapping_fragments() -> Iterator[bytes]:
    for number in range(2000):
        for offset, more, size in ((0, _MORE, 64), (4, _MORE, 64), (1, 0, 8), (8190, _MORE, 64), (0, 0, 8)):
            yield packet(_UDP, _WEB, bytes(size), number=number, fragment=more | offset)


def _pings_of_the_gateway() -> Iterator[bytes]:
    yield from (echo(_GATEWAY, number) for number in range(5000))


def _pings_of_the_internet() -> Iterator[bytes]:
    yield from (echo(_WEB, number) for number in range(5000))


def _dns_names() -> Iterator[bytes]:
    """Names that no cache can know, each asked once."""
    for number in range(MANY):
        yield query(b"n%d.flood.example.test" % number, number, 1024 + number)


def _dns_one_name() -> Iterator[bytes]:
    yield from (query(b"www.example.test", number, 1024 + number) for number in range(5000))


def _dns_connections() -> Iterator[bytes]:
    yield from (segment(_GATEWAY, source, 53) for source in range(1024, 65535, 7))


def _arp() -> Iterator[bytes]:
    for operation in (1, 2):
        for host in range(1, 255):
            claimed = bytes((10, 0, 2, host))
            yield (
                (_ALL + _MAC + b"\x08\x06\0\1\x08\0\6\4")
                + struct.pack("!H", operation)
                + (bytes((2, 0, 0, 0, 2, host)) + claimed + bytes(6) + _GATEWAY)
            )
    yield from [_ALL + _MAC + b"\x08\x06\0\1\x08\0\6\4\0\1" + _MAC + _GUEST + bytes(6) + _GATEWAY] * 500


def _dhcp() -> Iterator[bytes]:
    for number in range(5000):
        boot = struct.pack("!BBBBIHH", 1, 1, 6, 0, number, 0, 0) + bytes(16) + _MAC + bytes(10 + 64 + 128)
        boot += b"\x63\x82\x53\x63\x35\x01\x01\xff"
        udp = struct.pack("!HHHH", 68, 67, 8 + len(boot), 0) + boot
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, _UDP, 0)
        check = struct.pack("!H", checksum(head + bytes(4) + b"\xff" * 4))
        yield _ALL + _MAC + b"\x08\x00" + head[:10] + check + bytes(4) + b"\xff" * 4 + udp


KINDS: dict[str, Callable[[], Iterable[bytes]]] = {
    "TCP scan of all ports": _port_scan,
    "TCP scan of many hosts": _host_scan,
    "10,000 new TCP flows": _new_flows,
    "UDP source-port rotation": _port_rotation,
    "UDP to random hosts and ports": _random_datagrams,
    "UDP, large, one flow": _large_datagrams,
    "denied addresses": _denied,
    "fragments, never finished": _unfinished_fragments,
    "fragments, tiny": _tiny_fragments,
    "fragments, overlapping": _overlapping_fragments,
    "ping of the gateway": _pings_of_the_gateway,
    "ping of the internet": _pings_of_the_internet,
    "DNS, a new name each": _dns_names,
    "DNS, one name": _dns_one_name,
    "DNS, TCP connects": _dns_connections,
    "ARP": _arp,
    "DHCP": _dhcp,
}


def messages(kind: str, most: int = 65_536) -> list[bytes]:
    """The WebSocket frames of a flood."""
    return [masked(frame) for frame in islice(KINDS[kind](), most)]
