"""Headers of packets that a tunnel's firewall refused, as nfnetlink_log hands them over.

Numbers and attributes are those of linux/netfilter/nfnetlink_log.h. netd opens the socket and tells the
kernel what to copy; the server, to which it goes, can only read: every request needs CAP_NET_ADMIN.
"""

import os
import socket
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from netns import netlink, sockfilter
from netns.auditrules import COPIED, FORWARDED, GROUP
from netns.errors import SegmentError

RECEIVE_BUFFER: Final = 128 * 1024
"""As asked for; the kernel takes double. What that does not hold is lost: it was counted all the same."""
MAX_DATAGRAM: Final = 4096

_NETLINK_NETFILTER = 12
_SUBSYSTEM, _PACKET, _CONFIG = 4, 0, 1
_REQUEST, _ACK, _ERROR = 0x1, 0x4, 0x2
_COMMAND, _MODE, _MOST_HELD = 1, 2, 5
_BIND, _COPY_PACKET = 1, 2
_PAYLOAD, _PREFIX = 9, 10
_WITH_PORTS = (socket.IPPROTO_TCP, socket.IPPROTO_UDP)
# Packets, by the subsystem in nlmsg_type, and what the kernel says to requests: nothing else is ever read.
_ONLY_PACKETS = (
    (0x30, 0, 0, 5),
    (0x15, 3, 0, _SUBSYSTEM),
    (0x15, 0, 3, 0),
    (0x30, 0, 0, 4),
    (0x15, 0, 1, _ERROR),
    (0x06, 0, 0, 0xFFFFFFFF),
    (0x06, 0, 0, 0),
)


class Denial(NamedTuple):
    """One packet that was refused.

    rule: name of the counter. address: where it was to go. port: None where there is none, or the header says
    nothing of it. is_forwarded: both are those of a forward's target.
    """

    rule: str
    protocol: int
    address: str
    port: int | None
    is_forwarded: bool


def open_log() -> int:
    """A non-blocking socket with the headers that `netns.auditrules` has copied in this namespace.

    Raises OSError; SegmentError where the kernel has no nfnetlink_log.
    """
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER) as connection:
        connection.settimeout(2.0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        connection.bind((0, 0))
        for kind, value in (
            (_COMMAND, bytes([_BIND])),
            (_MODE, struct.pack("!IBx", COPIED, _COPY_PACKET)),
            (
                _MOST_HELD,
                struct.pack("!I", 1),
            ),  # each at once, so that it is there before its counter is read
        ):
            try:
                _configure(connection, netlink.attribute(kind, value))
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                raise SegmentError(
                    f"the kernel does not tell of refused packets ({reason}): modprobe nfnetlink_log"
                ) from error
        sockfilter.lock(connection, _ONLY_PACKETS)
        connection.setblocking(False)
        return connection.detach()


def _configure(connection: socket.socket, attribute: bytes) -> None:
    body = struct.pack("=BB", socket.AF_UNSPEC, 0) + GROUP.to_bytes(2) + attribute
    header = (16 + len(body), _SUBSYSTEM << 8 | _CONFIG, _REQUEST | _ACK, 1, 0)
    connection.send(struct.pack("=IHHII", *header) + body)
    for kind, payload in netlink.split(connection.recv(65536)):
        if kind == _ERROR:
            netlink.raise_error(payload)


def parse(data: bytes) -> Iterator[Denial]:
    """The packets of one datagram; what is none is passed over. Raises nothing."""
    for kind, payload in netlink.split(data):
        if kind != _SUBSYSTEM << 8 | _PACKET:
            continue
        attributes = dict(netlink.attributes(payload[4:]))
        prefix = attributes.get(_PREFIX, b"").rstrip(b"\0").decode("ascii", "replace")
        denial = _of_header(attributes.get(_PAYLOAD, b""), prefix)
        if denial is not None:
            yield denial


def _of_header(packet: bytes, prefix: str) -> Denial | None:
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    protocol, fragment = packet[9], int.from_bytes(packet[6:8]) & 0x1FFF
    # Behind options, or in another fragment than the first, stands something else there.
    is_known = packet[0] == 0x45 and not fragment and len(packet) >= COPIED and protocol in _WITH_PORTS
    port = int.from_bytes(packet[22:24]) if is_known else None
    rule = prefix.removesuffix(FORWARDED)
    return Denial(rule, protocol, socket.inet_ntoa(packet[16:20]), port, rule != prefix)
