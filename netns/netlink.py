"""Netlink messages and attributes as bytes; netlink(7), linux/netlink.h."""

import os
import socket
import struct
from collections.abc import Iterable, Iterator

NESTED = 0x8000
TYPE_MASK = 0x3FFF
_ERROR, _DONE = 0x2, 0x3


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def nest(kind: int, parts: Iterable[bytes]) -> bytes:
    """An attribute of attributes."""
    return attribute(kind | NESTED, b"".join(parts))


def string(kind: int, text: str) -> bytes:
    """An attribute that is a zero-terminated string."""
    return attribute(kind, text.encode() + b"\0")


def split(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The messages of one datagram: type, payload."""
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        if length < 16:
            return
        yield kind, data[16:length]
        data = data[(length + 3) & ~3 :]


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes of a payload: type without flags, value."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind & TYPE_MASK, data[4:length]
        data = data[(length + 3) & ~3 :]


def dumped(connection: socket.socket) -> Iterator[bytes]:
    """The payloads of the answer to a request with NLM_F_DUMP, to be read to the end. Raises OSError."""
    while True:
        for kind, payload in split(connection.recv(65536)):
            if kind == _DONE:
                return
            if kind == _ERROR:
                raise_error(payload)
            else:
                yield payload


def raise_error(payload: bytes) -> None:
    """Raise OSError for the payload of an NLMSG_ERROR, unless it acknowledges."""
    code = -int(struct.unpack_from("=i", payload)[0])
    if code:
        raise OSError(code, f"netlink: {os.strerror(code)}")
