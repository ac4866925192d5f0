"""A namespace's connection tracking: its events as they come, and a dump of what there is.

Numbers and attributes are those of linux/netfilter/nfnetlink_conntrack.h and nf_conntrack_tcp.h. The socket
of events is opened by netd and only read by the server: sending on it, or asking for other groups, takes a
capability of whoever calls (netlink(7)), and the server has none.
"""

import contextlib
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from netns import netlink, sockfilter
from netns.errors import SegmentError

TCP: Final = socket.IPPROTO_TCP
UDP: Final = socket.IPPROTO_UDP
RECEIVE_BUFFER: Final = 128 * 1024
"""As asked for; the kernel takes double. What that does not hold is lost (ENOBUFS)."""
AUDIT_BUFFER: Final = 1024 * 1024
"""For who needs every event: the flows that may begin at once, three times."""
MAX_EVENT: Final = 4096
UNCOUNTED: Final = 2
"""Mark of entries that a dump passes over; the rules see to it that they have no events either."""
MAX_DUMPED: Final = 65_536

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 1
_NEW, GET, _DELETE, _GET_STATS = 0, 1, 2, 5
NEW, DESTROY = _SUBSYSTEM << 8 | _NEW, _SUBSYSTEM << 8 | _DELETE
"""Types of messages about a flow; a dump's are the first, too."""
_GROUPS = 0b111  # NEW, UPDATE, DESTROY
_REQUEST, _DUMP = 0x1, 0x300
CREATED = 0x400  # NLM_F_CREATE in the flags of an event about a new entry
_ERROR = 0x2
_TUPLE_ORIGINAL, _PROTOCOL_INFO, MARK, _ID = 1, 4, 8, 12
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
_OVER = (7, 8)  # TCP_CONNTRACK_TIME_WAIT, TCP_CONNTRACK_CLOSE
# What surrounds protocol and id in every event about an IPv4 flow, by offset.
_USUAL = (
    (20, struct.pack("=HHHH", 52, 0x8000 | _TUPLE_ORIGINAL, 20, 0x8000 | 1)),
    (44, struct.pack("=HHHH", 28, 0x8000 | 2, 5, 1)),
    (124, struct.pack("=HH", 8, _ID)),
)
_USUAL_PROTOCOL, _USUAL_ID, _USUAL_END = 52, 128, 132


class Flow(NamedTuple):
    """What an event or a dump says of one flow.

    flow: the kernel's id of the entry, 32 bits. over: the entry is gone, or its TCP connection is closed.
    attributes: the whole message behind its headers, for whoever wants addresses, ports and bytes.
    """

    protocol: int
    flow: int
    over: bool
    attributes: bytes


def open_events(*, audit: bool = False) -> int:
    """A non-blocking socket with the events of the calling thread's namespace, as `kernel_filter` lets pass.

    ``audit``: with a larger buffer, where the kernel allows one. Raises OSError; SegmentError where the
    kernel cannot tell of its connections.
    """
    with _socket() as connection:
        _require_subsystem(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, AUDIT_BUFFER if audit else RECEIVE_BUFFER)
        if audit:
            with contextlib.suppress(PermissionError):  # beyond net.core.rmem_max
                connection.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, AUDIT_BUFFER)
        sockfilter.lock(connection, kernel_filter())
        connection.bind((connection.getsockname()[0], _GROUPS))
        connection.setblocking(False)
        return connection.detach()


def kernel_filter() -> list[tuple[int, int, int, int]]:
    """Classic BPF (linux/filter.h): new entries, ended ones, and changes that close a TCP connection.

    The others, four of a connection's seven, would only cost the reader.
    """
    load_byte, load_word, load_at_x = 0x30, 0x20, 0x50
    set_a, set_x, a_to_x = 0x00, 0x01, 0x07
    equal, at_least, any_bit, give = 0x15, 0x35, 0x45, 0x06
    find, find_inside = 0xFFFFF000 + 12, 0xFFFFF000 + 16  # SKF_AD_NLATTR, SKF_AD_NLATTR_NEST
    return [
        (load_byte, 0, 0, 4),
        (equal, 15, 0, _DELETE),
        (load_byte, 0, 0, 7),
        (any_bit, 13, 0, CREATED >> 8),
        (set_a, 0, 0, 20),  # behind nlmsghdr and nfgenmsg
        (set_x, 0, 0, _PROTOCOL_INFO),
        (load_word, 0, 0, find),
        (equal, 8, 0, 0),
        (set_x, 0, 0, 1),  # CTA_PROTOINFO_TCP, and in it CTA_PROTOINFO_TCP_STATE
        (load_word, 0, 0, find_inside),
        (equal, 5, 0, 0),
        (load_word, 0, 0, find_inside),
        (equal, 3, 0, 0),
        (a_to_x, 0, 0, 0),
        (load_at_x, 0, 0, 4),
        (at_least, 1, 0, _OVER[0]),
        (give, 0, 0, 0),
        (at_least, 0, 1, _OVER[1] + 1),
        (give, 0, 0, 0),
        (give, 0, 0, 0xFFFFFFFF),
    ]


def parse(data: bytes) -> Flow | None:
    """One event; None for what is none, or of another protocol than TCP and UDP. Raises nothing."""
    if len(data) < 20:
        return None
    length, kind, flags = struct.unpack_from("=IHH", data)
    if kind not in (NEW, DESTROY) or not 20 <= length <= len(data):
        return None
    gone = kind & 0xFF == _DELETE
    if (gone or flags & CREATED) and is_usual(data, length):
        protocol = data[_USUAL_PROTOCOL]
        number = int.from_bytes(data[_USUAL_ID:_USUAL_END])
        return Flow(protocol, number, gone, data[20:length]) if protocol in (TCP, UDP) else None
    return _flow(data[20:length], gone=gone)


def is_usual(data: bytes, length: int) -> bool:
    """Whether the fields of a new or ended flow are where they always are: three comparisons in place of
    walking attributes."""
    return length >= _USUAL_END and all(data.startswith(framing, offset) for offset, framing in _USUAL)


def _flow(attributes: bytes, *, gone: bool) -> Flow | None:
    protocol, number, over = 0, None, gone
    for kind, value in netlink.attributes(attributes):
        if kind == _TUPLE_ORIGINAL:
            protocol = _protocol(value)
        elif kind == MARK and int.from_bytes(value) == UNCOUNTED:
            return None
        elif kind == _ID and len(value) == 4:
            number = int.from_bytes(value)
        elif kind == _PROTOCOL_INFO and not gone:
            over = state_of(value) in _OVER
    if number is None or protocol not in (TCP, UDP):
        return None
    return Flow(protocol, number, over, attributes)


def _protocol(original: bytes) -> int:
    """CTA_TUPLE_PROTO { CTA_PROTO_NUM } of a tuple."""
    return _byte(dict(netlink.attributes(dict(netlink.attributes(original)).get(2, b""))).get(1, b""))


def state_of(info: bytes) -> int:
    """TCP's state: CTA_PROTOINFO_TCP { CTA_PROTOINFO_TCP_STATE }."""
    return _byte(dict(netlink.attributes(dict(netlink.attributes(info)).get(1, b""))).get(1, b""))


def _byte(value: bytes) -> int:
    return value[0] if value else 0


def dump(connection: socket.socket) -> list[Flow]:
    """The active TCP and UDP flows of the socket's namespace, at most `MAX_DUMPED`. Raises OSError.

    The kernel walks the one table of all namespaces for it: milliseconds.
    """
    flows: list[Flow] = []
    for attributes in entries(connection):
        flow = _flow(attributes, gone=False)
        if flow is not None and not flow.over and len(flows) < MAX_DUMPED:
            flows.append(flow)
    return flows


def entries(connection: socket.socket) -> Iterator[bytes]:
    """The attributes of every entry of the socket's namespace, to be read to the end. Raises OSError."""
    connection.send(request(GET, _DUMP))
    return (payload[4:] for payload in netlink.dumped(connection))


def pack(flows: Iterable[Flow]) -> bytes:
    """Protocol and id of each flow in five bytes; `unpack` is its inverse."""
    return b"".join(struct.pack("=BI", flow.protocol, flow.flow) for flow in flows)


def unpack(packed: bytes) -> Iterator[tuple[int, int]]:
    """Protocol and id of each flow; what is left over at the end is passed over."""
    return struct.iter_unpack("=BI", packed[: len(packed) // 5 * 5])


def _socket() -> socket.socket:
    connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    connection.settimeout(2.0)
    return connection


def _require_subsystem(connection: socket.socket) -> None:
    """Ask something cheap, for which the kernel loads its module."""
    connection.send(request(_GET_STATS, 0))
    for kind, payload in netlink.split(connection.recv(65536)):
        if kind == _ERROR:
            try:
                netlink.raise_error(payload)
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                raise SegmentError(
                    f"the kernel does not tell of its connections ({reason}): modprobe nf_conntrack_netlink"
                ) from error


def request(operation: int, flags: int, attributes: bytes = b"") -> bytes:
    """A message to the kernel, about IPv4."""
    payload = struct.pack("=BB", socket.AF_INET, 0) + bytes(2) + attributes
    header = (16 + len(payload), _SUBSYSTEM << 8 | operation, _REQUEST | flags, 1, 0)
    return struct.pack("=IHHII", *header) + payload
