"""A tunnel's beginning, by hand on a socket: handshake and lease. The card gets a tunnel that stands."""

from __future__ import annotations

import base64
import secrets
import socket
import struct
from collections.abc import Iterator
from urllib.parse import urlsplit

from aero_l2.client.address import Target
from aero_l2.probe import dhcp, packets
from aero_l2.services.dhcp import codec

_HEADER = b"\xa2\x03\x00\x00"
_MASK = b"\0\0\0\0"  # RFC 6455 §5.3 asks for unpredictable ones; these few messages may do without


class TunnelRefused(Exception):
    """The server did not give a tunnel or a lease; the text is what it said."""


def endpoint(target: Target) -> tuple[str, int]:
    """Host and port of an address."""
    parts = urlsplit(target.url)
    return parts.hostname or "", parts.port or (443 if target.is_tls else 80)


def request(target: Target) -> bytes:
    """The upgrade."""
    parts = urlsplit(target.url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {parts.netloc}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(secrets.token_bytes(16)).decode()}",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Protocol: {', '.join(target.subprotocols)}",
        *([f"Origin: {target.origin}"] if target.origin else []),
        *(f"{name}: {value}" for name, value in target.headers),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def check_answer(target: Target, head: bytes) -> None:
    """Raises TunnelRefused unless it is a 101."""
    if not head.startswith(b"HTTP/1.1 101"):
        said = target.redact(head[:300].decode("latin-1")).splitlines()
        raise TunnelRefused(f"{target.display}: {said[0] if said else 'no answer'}")


def masked(frame: bytes) -> bytes:
    """One FRAME message as a client's WebSocket frame."""
    size = len(frame) + len(_HEADER)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack("!H", size)
    return b"\x82" + length + _MASK + _HEADER + frame


class Frames:
    """Takes what a server sends apart; gives the Ethernet frames in it."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Every whole frame."""
        self.rest += data
        while len(self.rest) >= 4:
            size, skip = self.rest[1], 2
            if size == 126:
                size, skip = int.from_bytes(self.rest[2:4]), 4
            if len(self.rest) < skip + size:
                return
            message, self.rest = self.rest[skip : skip + size], self.rest[skip + size :]
            if message.startswith(_HEADER):
                yield message[len(_HEADER) :]


def mac_of(number: int) -> bytes:
    """The card of guest ``number``."""
    return b"\x02\0\0\0" + number.to_bytes(2)


def discover(number: int) -> bytes:
    """A guest's DISCOVER as a WebSocket frame."""
    return _broadcast(mac_of(number), dhcp.discover(mac_of(number), number + 1))


def _broadcast(mac: bytes, message: bytes) -> bytes:
    way = packets.Way(mac, packets.UNSPECIFIED, packets.BROADCAST_MAC, packets.BROADCAST)
    return masked(packets.datagram(way, dhcp.CLIENT_PORT, dhcp.SERVER_PORT, message))


def offer_in(frame: bytes, number: int) -> codec.DhcpMessage | None:
    """A DHCP answer to guest ``number``; None for anything else."""
    if len(frame) < 42 or frame[23:24] != b"\x11" or frame[34:38] != b"\0\x43\0\x44":
        return None
    return dhcp.read(frame[42:], mac_of(number), number + 1)


def shake_hands(connection: socket.socket, target: Target) -> None:
    """Become a WebSocket; what comes behind the 101 is left unread. Raises TunnelRefused, OSError."""
    connection.settimeout(30)
    connection.sendall(request(target))
    head = b""
    while b"\r\n\r\n" not in head:
        if not (byte := connection.recv(1)):
            break
        head += byte
    check_answer(target, head)


def lease(connection: socket.socket, number: int = 0) -> dhcp.Lease:
    """DISCOVER to ACK; reads whole messages and no byte more. Raises TunnelRefused, OSError."""
    connection.sendall(discover(number))
    while True:
        message = _message(connection)
        answer = offer_in(message[len(_HEADER) :], number) if message.startswith(_HEADER) else None
        if answer is not None and answer.kind == codec.OFFER:
            connection.sendall(_broadcast(mac_of(number), dhcp.request(mac_of(number), number + 1, answer)))
        elif answer is not None and answer.kind == codec.ACK:
            return dhcp.lease_of(answer)


def _message(connection: socket.socket) -> bytes:
    """The payload of the next WebSocket frame."""
    begin = connection.recv(2, socket.MSG_WAITALL)
    if len(begin) < 2 or begin[0] == 0x88:
        raise TunnelRefused("the tunnel was closed before there was a lease")
    size = begin[1]
    if size == 126:
        size = int.from_bytes(connection.recv(2, socket.MSG_WAITALL))
    return connection.recv(size, socket.MSG_WAITALL) if size else b""
