"""All that connection tracking knows of a flow: ends, bytes, packets, state. For an audit log.

Numbers and attributes are those of linux/netfilter/nfnetlink_conntrack.h and nf_conntrack_common.h. Counters
are there where a tunnel's rules switch accounting on (`netns.auditrules`).
"""

import contextlib
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from netns import conntrack, netlink
from netns.errors import MessageError

ICMP: Final = socket.IPPROTO_ICMP
PROTOCOLS: Final = (conntrack.TCP, conntrack.UDP, ICMP)
MAX_WANTED: Final = 512
"""Flows that one message asks for."""
NO_STATE: Final = 255
SEEN_REPLY, ASSURED = 2, 4
"""Bits of `Facts.status` (IPS_*): something came back; the connection was open."""
SYN_SENT, SYN_RECEIVED, TIME_WAIT, CLOSE = 1, 2, 7, 8
"""Values of `Facts.state` (TCP_CONNTRACK_*)."""

_ORIGINAL, _REPLY, _STATUS, _PROTOCOL_INFO, _SENT, _GOT, _ID = 1, 2, 3, 4, 9, 10, 12
# Where both ends' fields stand in an event as it usually is (`conntrack.is_usual`), from its beginning.
_USUAL = struct.Struct(">32x4s4x4s8xB7xH6xH14x4s24xH14xI")
_PACKED = struct.Struct("=IBBH4sH4sH4sH?QQQQ")


class Ends(NamedTuple):
    """Where a flow began and where it was to go, before any translation; for ICMP the ports are its id, and
    type and code in one number. Addresses are four bytes."""

    protocol: int
    source: bytes
    source_port: int
    target: bytes
    target_port: int


class Facts(NamedTuple):
    """What an event or a dump says of one flow.

    flow: the kernel's id of the entry. answers, answers_port: who really answers, after translation.
    state: of TCP, `NO_STATE` where nothing is said of it. is_counted: whether there are counters; sent is
    what went from `ends.source`, in bytes of IP packets.
    """

    flow: int
    ends: Ends
    answers: bytes
    answers_port: int
    state: int
    status: int
    is_counted: bool
    packets_sent: int
    bytes_sent: int
    packets_got: int
    bytes_got: int


def of_event(data: bytes) -> tuple[bool, Facts] | None:
    """A flow that began (True) or ended (False); None for other events. Raises nothing."""
    if len(data) < 20:
        return None
    length, kind, flags = struct.unpack_from("=IHH", data)
    began = kind == conntrack.NEW and bool(flags & conntrack.CREATED)
    if not (began or kind == conntrack.DESTROY) or not 20 <= length <= len(data):
        return None
    facts = _usual(data[:length]) if conntrack.is_usual(data, length) else _facts(data[20:length])
    return None if facts is None else (began, facts)


def _usual(data: bytes) -> Facts | None:
    """Most of it by offset: walking all attributes takes three times as long."""
    source, target, protocol, source_port, target_port, answers, port, flow = _USUAL.unpack_from(data)
    if protocol not in (conntrack.TCP, conntrack.UDP):
        return None
    ends = Ends(protocol, source, source_port, target, target_port)
    return _with_more(flow, ends, answers, port, dict(netlink.attributes(data[_USUAL.size :])))


def _facts(attributes: bytes) -> Facts | None:
    """None for what is no flow of a guest's, or of a protocol that is none here."""
    found = dict(netlink.attributes(attributes))
    if int.from_bytes(found.get(conntrack.MARK, b"")) == conntrack.UNCOUNTED:
        return None
    ends, reply = _ends(found.get(_ORIGINAL, b"")), _ends(found.get(_REPLY, b""))
    if ends is None or reply is None or len(found.get(_ID, b"")) != 4:
        return None
    return _with_more(int.from_bytes(found[_ID]), ends, reply.source, reply.source_port, found)


def _with_more(flow: int, ends: Ends, answers: bytes, port: int, found: dict[int, bytes]) -> Facts:
    sent, got = _counter(found.get(_SENT, b"")), _counter(found.get(_GOT, b""))
    return Facts(
        flow,
        ends,
        answers,
        port,
        conntrack.state_of(found[_PROTOCOL_INFO]) if _PROTOCOL_INFO in found else NO_STATE,
        int.from_bytes(found.get(_STATUS, b"")) & 0xFFFF,
        sent is not None and got is not None,
        *(sent or (0, 0)),
        *(got or (0, 0)),
    )


def _ends(value: bytes) -> Ends | None:
    """CTA_TUPLE_IP { V4_SRC, V4_DST }, CTA_TUPLE_PROTO { NUM, SRC_PORT, DST_PORT or ICMP_ID, TYPE, CODE }."""
    parts = dict(netlink.attributes(value))
    addresses, proto = (dict(netlink.attributes(parts.get(kind, b""))) for kind in (1, 2))
    source, target, number = addresses.get(1, b""), addresses.get(2, b""), proto.get(1, b"")
    if len(source) != 4 or len(target) != 4 or len(number) != 1:
        return None
    if number[0] == ICMP:
        first, second = proto.get(4, b""), proto.get(5, b"") + proto.get(6, b"")
    else:
        first, second = proto.get(2, b""), proto.get(3, b"")
    if number[0] not in PROTOCOLS or len(first) != 2 or len(second) != 2:
        return None
    return Ends(number[0], source, int.from_bytes(first), target, int.from_bytes(second))


def _counter(value: bytes) -> tuple[int, int] | None:
    """CTA_COUNTERS_PACKETS and CTA_COUNTERS_BYTES."""
    parts = dict(netlink.attributes(value))
    return (int.from_bytes(parts[1]), int.from_bytes(parts[2])) if {1, 2} <= parts.keys() else None


# -- netd: looking flows up, on a socket of their namespace


def read(connection: socket.socket, wanted: Sequence[Ends]) -> bytes:
    """The flows that are wanted and there, or all where none is named, packed. Raises OSError.

    One that is named takes 7 µs; all of them milliseconds, for the kernel walks one table of all namespaces.
    """
    found: Iterable[Facts | None]
    if wanted:
        found = (_look_up(connection, ends) for ends in wanted)
    else:
        found = map(_facts, conntrack.entries(connection))
    packed: list[bytes] = []
    for facts in found:
        if facts is not None and len(packed) < conntrack.MAX_DUMPED:
            packed.append(_pack(facts))
    return b"".join(packed)


def _look_up(connection: socket.socket, ends: Ends) -> Facts | None:
    source, target = netlink.attribute(1, ends.source), netlink.attribute(2, ends.target)
    parts = [netlink.nest(1, [source, target]), netlink.nest(2, _protocol(ends))]
    connection.send(conntrack.request(conntrack.GET, 0, netlink.nest(_ORIGINAL, parts)))
    for kind, payload in netlink.split(connection.recv(65536)):
        if kind == conntrack.NEW:
            return _facts(payload[4:])
        with contextlib.suppress(FileNotFoundError):
            netlink.raise_error(payload)
    return None


def _protocol(ends: Ends) -> Iterator[bytes]:
    yield netlink.attribute(1, bytes([ends.protocol]))
    first, second = ends.source_port.to_bytes(2), ends.target_port.to_bytes(2)
    if ends.protocol == ICMP:
        yield netlink.attribute(4, first)
        yield netlink.attribute(5, second[:1])
        yield netlink.attribute(6, second[1:])
    else:
        yield netlink.attribute(2, first)
        yield netlink.attribute(3, second)


# -- between netd and the server


def _pack(facts: Facts) -> bytes:
    flow, (protocol, source, source_port, target, target_port), answers, port, state, status, *counters = (
        facts
    )
    return _PACKED.pack(
        flow, protocol, state, status, source, source_port, target, target_port, answers, port, *counters
    )


def unpack(packed: bytes) -> Iterator[Facts]:
    """What `read` returned; what is left over at the end is passed over."""
    for fields in _PACKED.iter_unpack(packed[: len(packed) // _PACKED.size * _PACKED.size]):
        flow, protocol, state, status, source, source_port, target, target_port, answers, port, *rest = fields
        ends = Ends(protocol, source, source_port, target, target_port)
        yield Facts(flow, ends, answers, port, state, status, *rest)


def to_message(wanted: Sequence[Ends]) -> list[list[Any]]:
    """JSON-ready; `from_message` is its inverse."""
    return [
        [e.protocol, e.source.hex(), e.source_port, e.target.hex(), e.target_port]
        for e in wanted[:MAX_WANTED]
    ]


def from_message(values: Any) -> tuple[Ends, ...]:
    """Check and build from untrusted values. Raises MessageError, nothing else."""
    if type(values) is not list or len(values) > MAX_WANTED:
        raise MessageError("not a list of flows, or too many")
    return tuple(map(_checked, values))


def _checked(value: Any) -> Ends:
    match value:
        case [int(protocol), str(source), int(source_port), str(target), int(target_port)]:
            with contextlib.suppress(ValueError):
                ends = Ends(protocol, bytes.fromhex(source), source_port, bytes.fromhex(target), target_port)
                ports = all(type(port) is int and 0 <= port <= 65535 for port in (source_port, target_port))
                if ports and len(ends.source) == len(ends.target) == 4 and protocol in PROTOCOLS:
                    return ends
    raise MessageError("not a flow")
