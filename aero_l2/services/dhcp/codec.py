"""DHCP messages to values and back (RFC 2131 section 2, RFC 2132 section 2, RFC 3396).

A codec of our own, because pyroute2's (0.9.7, measured) is not fit for a server that faces firmware and
strangers: an empty client identifier ends in IndexError; one option it cannot decode drops all that follow
and writes a log line; option overload and split options are not read; client identifiers are not kept byte
for byte; and it takes ten times as long.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

MAGIC_COOKIE: Final = b"\x63\x82\x53\x63"
# BOOTP's size (RFC 951): some clients and relays drop anything shorter.
MIN_MESSAGE_BYTES: Final = 300

_HEADER: Final = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")

PAD: Final = 0
SUBNET_MASK: Final = 1
ROUTER: Final = 3
DNS_SERVERS: Final = 6
INTERFACE_MTU: Final = 26
REQUESTED_ADDRESS: Final = 50
LEASE_TIME: Final = 51
OVERLOAD: Final = 52
MESSAGE_TYPE: Final = 53
SERVER_ID: Final = 54
MESSAGE: Final = 56
RENEWAL_TIME: Final = 58
REBINDING_TIME: Final = 59
CLIENT_ID: Final = 61
END: Final = 255

BOOTREQUEST: Final = 1
BOOTREPLY: Final = 2

DISCOVER: Final = 1
OFFER: Final = 2
REQUEST: Final = 3
DECLINE: Final = 4
ACK: Final = 5
NAK: Final = 6
RELEASE: Final = 7
INFORM: Final = 8

_ANY = IPv4Address(0)


class DhcpError(ValueError):
    """The bytes are not a DHCP message; the text says where they stop being one."""


@dataclass(frozen=True, slots=True)
class DhcpMessage:
    """One message. `chaddr` is the whole field of 16 bytes; `options` code → value, split ones joined.

    PAD, END and OVERLOAD are framing and never appear in `options`. `sname` and `file` are not kept.
    """

    op: int
    xid: int
    chaddr: bytes
    options: Mapping[int, bytes]
    htype: int = 1
    hlen: int = 6
    hops: int = 0
    secs: int = 0
    flags: int = 0
    ciaddr: IPv4Address = _ANY
    yiaddr: IPv4Address = _ANY
    siaddr: IPv4Address = _ANY
    giaddr: IPv4Address = _ANY

    @property
    def kind(self) -> int | None:
        """The DHCP message type (option 53); None for plain BOOTP. DhcpError if it is not one byte."""
        value = self.options.get(MESSAGE_TYPE)
        if value is None:
            return None
        if len(value) != 1:
            raise DhcpError(f"option 53 has {len(value)} bytes, not 1")
        return value[0]

    def address(self, code: int) -> IPv4Address | None:
        """The option `code` as an address; None if absent. DhcpError if it is not four bytes."""
        value = self.options.get(code)
        if value is None:
            return None
        if len(value) != 4:
            raise DhcpError(f"option {code} has {len(value)} bytes, not 4")
        return IPv4Address(value)


def decode(data: bytes) -> DhcpMessage:
    """Read a message; a missing END option and any padding are fine (BOOTP clients send both).

    Raises DhcpError for everything that is not a DHCP message, and nothing else.
    """
    if len(data) < _HEADER.size:
        raise DhcpError(f"message too short: {len(data)} < {_HEADER.size}")
    op, htype, hlen, hops, xid, secs, flags, ci, yi, si, gi, chaddr, sname, file, cookie = (
        _HEADER.unpack_from(data)
    )
    if cookie != MAGIC_COOKIE:
        raise DhcpError("no DHCP magic cookie")
    return DhcpMessage(
        op=op,
        xid=xid,
        chaddr=chaddr,
        options=_all_options(data[_HEADER.size :], file, sname),
        htype=htype,
        hlen=hlen,
        hops=hops,
        secs=secs,
        flags=flags,
        ciaddr=IPv4Address(ci),
        yiaddr=IPv4Address(yi),
        siaddr=IPv4Address(si),
        giaddr=IPv4Address(gi),
    )


def encode(message: DhcpMessage) -> bytes:
    """Write a message, options in the mapping's order, padded to 300 bytes.

    An option over 255 bytes is split (RFC 3396). Raises struct.error for numbers that do not fit their field.
    """
    head = _HEADER.pack(
        message.op,
        message.htype,
        message.hlen,
        message.hops,
        message.xid,
        message.secs,
        message.flags,
        message.ciaddr.packed,
        message.yiaddr.packed,
        message.siaddr.packed,
        message.giaddr.packed,
        message.chaddr,
        b"",
        b"",
        MAGIC_COOKIE,
    )
    options = b"".join(_encode_option(code, value) for code, value in message.options.items())
    return (head + options + bytes([END])).ljust(MIN_MESSAGE_BYTES, b"\x00")


def _encode_option(code: int, value: bytes) -> bytes:
    parts = [value[start : start + 255] for start in range(0, len(value), 255)] or [b""]
    return b"".join(bytes([code, len(part)]) + part for part in parts)


def _all_options(area: bytes, file: bytes, sname: bytes) -> dict[int, bytes]:
    """Read the options field, then `file` and `sname` where it says so, in this order (RFC 3396)."""
    options: dict[int, bytes] = {}
    _read_options(area, options)
    overload = options.pop(OVERLOAD, None)
    if overload is None:
        return options
    if overload not in (b"\x01", b"\x02", b"\x03"):
        raise DhcpError(f"option 52 is {overload.hex() or 'empty'}, not 01, 02 or 03")
    if overload[0] & 1:
        _read_options(file, options)
    if overload[0] & 2:
        _read_options(sname, options)
    options.pop(OVERLOAD, None)
    return options


def _read_options(area: bytes, options: dict[int, bytes]) -> None:
    position, end = 0, len(area)
    while position < end:
        code = area[position]
        position += 1
        if code == PAD:
            continue
        if code == END:
            return
        if position == end:
            raise DhcpError(f"option {code} has no length")
        length = area[position]
        position += 1
        if position + length > end:
            raise DhcpError(f"option {code} ends {position + length - end} bytes after the message")
        options[code] = options.get(code, b"") + area[position : position + length]
        position += length
