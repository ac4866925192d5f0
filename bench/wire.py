"""What a client says on its way to a tunnel and a lease, and what a server answers: bytes, no sockets."""

from __future__ import annotations

import base64
import os
import secrets
import struct
from collections.abc import Iterator
from urllib.parse import urlsplit

from aero_l2.client.address import Credential, Target
from aero_l2.client.errors import printable
from aero_l2.probe import dhcp, packets
from aero_l2.services.dhcp import codec

HEADER = b"\xa2\x03\x00\x00"
LONG_HEAD = "the head of its answer is longer than 16 KiB"
NO_TUNNEL = "the server sends what no tunnel has"
HEAD_MAX = 16 * 1024
"""Bytes of an HTTP answer's head, more than any server needs."""
WIDE = 126
"""In a WebSocket frame's second byte: two bytes of length follow. What is above has no place in a tunnel."""
_MASK = b"\0\0\0\0"  # RFC 6455 §5.3 asks for unpredictable ones; these few messages may do without


class TunnelRefused(Exception):
    """The server did not give a tunnel or a lease; the text says why, in one line for people."""


def target_of(url: str) -> Target:
    """The address, with what the environment says of credential and Origin. Raises InvalidTarget."""
    token = os.environ.get("AERO_L2_CLIENT_TOKEN")
    return Target.of(url, Credential(token) if token else None, os.environ.get("AERO_L2_BENCH_ORIGIN"))


def refused(target: Target, why: str) -> TunnelRefused:
    """The error. why: what a server said may be in it, whole, so that no part of a secret is left over."""
    return TunnelRefused(f"{target.display}: {printable(target.redact(why))}")


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
        said = target.redact(head.decode("latin-1")).splitlines()
        raise refused(target, said[0] if said else "the connection ended before an answer")


def masked(frame: bytes) -> bytes:
    """One FRAME message as a client's WebSocket frame."""
    size = len(frame) + len(HEADER)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack("!H", size)
    return b"\x82" + length + _MASK + HEADER + frame


class Frames:
    """Takes what a server sends apart; gives the Ethernet frames in it."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Every whole frame. Raises TunnelRefused."""
        self._rest += data
        while len(self._rest) >= 4:
            size, skip = self._rest[1], 2
            if size > WIDE:
                raise TunnelRefused(NO_TUNNEL)
            if size == WIDE:
                size, skip = int.from_bytes(self._rest[2:4]), 4
            if len(self._rest) < skip + size:
                return
            message = bytes(self._rest[skip : skip + size])
            del self._rest[: skip + size]
            if message.startswith(HEADER):
                yield message[len(HEADER) :]


def mac_of(number: int) -> bytes:
    """The card of guest ``number``."""
    return b"\x02\0\0\0" + number.to_bytes(2)


def discover(number: int) -> bytes:
    """A guest's DISCOVER as a WebSocket frame."""
    return _broadcast(mac_of(number), dhcp.discover(mac_of(number), number + 1))


def accept(number: int, offer: codec.DhcpMessage) -> bytes:
    """Its REQUEST."""
    return _broadcast(mac_of(number), dhcp.request(mac_of(number), number + 1, offer))


def _broadcast(mac: bytes, message: bytes) -> bytes:
    way = packets.Way(mac, packets.UNSPECIFIED, packets.BROADCAST_MAC, packets.BROADCAST)
    return masked(packets.datagram(way, dhcp.CLIENT_PORT, dhcp.SERVER_PORT, message))


def dhcp_in(frame: bytes, number: int) -> codec.DhcpMessage | None:
    """A DHCP answer to guest ``number``: OFFER, ACK or NAK; None for anything else."""
    if len(frame) < 42 or frame[23:24] != b"\x11" or frame[34:38] != b"\0\x43\0\x44":
        return None
    return dhcp.read(frame[42:], mac_of(number), number + 1)
