"""What a hostile guest sends: floods as WebSocket bytes that are made before they are sent.

Each kind is a list of frames, or of WebSocket messages, that is sent round and round. Addresses are those of
the test world.
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
BLAST_PORT = 7008
KEPT_UP_S = 0.05


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


ARP_QUESTION = b"\x08\x06\0\1\x08\0\6\4\0\1"
ARP_REPLY = masked(
    _GATEWAY_MAC + _MAC + b"\x08\x06\0\1\x08\0\6\4\0\2" + _MAC + _GUEST + _GATEWAY_MAC + _GATEWAY
)
"""That the guest's address is its card's (RFC 826): without it the gateway's answers do not reach it."""


def _public(chance: random.Random) -> bytes:
    """Somewhere in the test internet where nobody is."""
    return bytes((chance.choice((23, 81, 130, 142)), *chance.randbytes(3)))


def _port_scan() -> Iterator[bytes]:
    yield from (segment(_WEB, 40000, port) for port in range(1, 65536) if port != 25)


def _host_scan() -> Iterator[bytes]:
    yield from (segment(struct.pack("!I", (81 << 24) + host), 40000, 443) for host in range(1, MANY))


def _new_flows() -> Iterator[bytes]:
    """Connections to services that take them, and are left alone with them; each has a rate of its own."""
    servers = (_WEB, _CDN)
    yield from (segment(servers[source % 2], source, at.DISCARD_PORT) for source in range(20_000, 30_000))


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


def _bare_headers() -> Iterator[bytes]:
    """The smallest frames that are passed on, of a protocol that nobody speaks."""
    yield from [_GATEWAY_MAC + _MAC + b"\x88\xb5"] * 5000


def _cut_off() -> Iterator[bytes]:
    """Less than an Ethernet header."""
    yield from (bytes(size % 14) for size in range(5000))


def _large_unknown() -> Iterator[bytes]:
    yield from [_ALL + _MAC + b"\x88\xb5" + bytes(1500)] * 500


def _broadcast() -> Iterator[bytes]:
    """To everybody, each way there is to say so; and to a group (RFC 6762)."""
    for number in range(2000):
        for mac, to in (
            (_ALL, b"\xff" * 4),
            (_ALL, b"\x0a\0\x02\xff"),
            (b"\1\0\x5e\0\0\xfb", b"\xe0\0\0\xfb"),
        ):
            yield mac + datagram(to, 5353, 5353 + number % 7)[6:]


def _router_solicitations() -> Iterator[bytes]:
    """RFC 4861 section 4.1, with a checksum that nobody looks at."""
    head = b"\x60\0\0\0\0\x08\x3a\xff" + bytes.fromhex("fe800000000000000000000000000001")
    head += bytes.fromhex("ff020000000000000000000000000002")
    yield from [b"\x33\x33\0\0\0\2" + _MAC + b"\x86\xdd" + head + b"\x85" + bytes(7)] * 2000


def _dns_nonsense() -> Iterator[bytes]:
    chance = random.Random(_SEED)
    for number in range(5000):
        yield datagram(_GATEWAY, 1024 + number, 53, chance.randbytes(chance.randrange(200)))


def _dns_allowed() -> Iterator[bytes]:
    """Names with an address each, which a list of allowed names has opened: as many as may be open, and soon
    again."""
    for number in range(2000):
        yield query(b"n%d.fleeting.allowed.test" % number, number, 1024 + number)


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
    "bare Ethernet headers": _bare_headers,
    "less than Ethernet headers": _cut_off,
    "large, of no protocol": _large_unknown,
    "broadcast and multicast": _broadcast,
    "router solicitations": _router_solicitations,
    "DNS, nonsense": _dns_nonsense,
    "DNS, an address to open each": _dns_allowed,
}


def websocket(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """A client's WebSocket frame (RFC 6455 section 5.2)."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack("!H", size)
    return bytes([0x80 * final | opcode]) + length + _MASK + payload


def _fragments_of_one_byte() -> Iterator[bytes]:
    """A frame in as many WebSocket frames as it has bytes."""
    message = _MESSAGE + _GATEWAY_MAC + _MAC + b"\x88\xb5" + bytes(46)
    for place in range(len(message)):
        one = message[place : place + 1]
        yield websocket(0x0 if place else 0x2, one, final=place == len(message) - 1)


def _empty_fragments() -> Iterator[bytes]:
    """A message of as many WebSocket frames, nearly all empty."""
    yield websocket(0x2, _MESSAGE, final=False)
    yield from [websocket(0x0, b"", final=False)] * 4000
    yield websocket(0x0, _GATEWAY_MAC + _MAC + b"\x88\xb5")


_PING_MESSAGE, _UNKNOWN_MESSAGE = b"\xa2\x03\x01\x00", b"\xa2\x03\x33\x00"
STREAMS: dict[str, Callable[[], Iterable[bytes]]] = {
    "protocol PINGs, small": lambda: [websocket(0x2, _PING_MESSAGE)] * 5000,
    "protocol PINGs, large": lambda: [websocket(0x2, _PING_MESSAGE + bytes(256))] * 1000,
    "messages of unknown types": lambda: [websocket(0x2, _UNKNOWN_MESSAGE)] * 5000,
    "WebSocket pings": lambda: [websocket(0x9, bytes(125))] * 1000,
    "WebSocket pings, empty": lambda: [websocket(0x9, b"")] * 5000,
    "WebSocket pongs": lambda: [websocket(0xA, b"")] * 5000,
    "texts, empty": lambda: [websocket(0x1, b"")] * 5000,
    "texts, large": lambda: [websocket(0x1, b"x" * 2000)] * 500,
    "messages in fragments of a byte": lambda: [b"".join(_fragments_of_one_byte())] * 500,
    "messages in empty fragments": _empty_fragments,
    "a byte at a time": lambda: [masked(_GATEWAY_MAC + _MAC + b"\x88\xb5" + bytes(46))] * 100,
}
"""Floods that are about the WebSocket, not about what is in it."""
BYTE_BY_BYTE = ("a byte at a time",)

FROM_OUTSIDE: dict[str, Callable[[], Iterable[bytes]]] = {
    "UDP from the internet, small": lambda: [masked(datagram(_WEB, 5000, BLAST_PORT, bytes(4)))],
    "UDP from the internet, large": lambda: [masked(datagram(_WEB, 5000, BLAST_PORT, bytes(1400)))],
}
"""Floods that the guest has somebody send; its own datagrams only keep them up, one each `KEPT_UP_S`."""

ALL = (*KINDS, *STREAMS, *FROM_OUTSIDE)


def messages(kind: str, most: int = 65_536) -> list[bytes]:
    """The WebSocket frames of a flood."""
    if kind in STREAMS or kind in FROM_OUTSIDE:
        return list(islice((STREAMS | FROM_OUTSIDE)[kind](), most))
    return [masked(frame) for frame in islice(KINDS[kind](), most)]
