"""Blocks of a pcapng file, encoded: one section, one Ethernet interface, nanoseconds. Pure: bytes out.

Source: draft-ietf-opsawg-pcapng, sections 4.1 (Section Header), 4.2 (Interface Description), 4.3 (Enhanced
Packet) and 4.6 (Interface Statistics). Little-endian, as its byte-order magic says.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

_SECTION_HEADER: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
_STATISTICS: Final = 5
_PACKET: Final = 6
_BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
_UNKNOWN_LENGTH: Final = 2**64 - 1
_ETHERNET: Final = 1
_USER_APPLICATION: Final = 4
_INTERFACE_NAME, _TIME_RESOLUTION = 2, 9
_RECEIVED, _DROPPED = 4, 5
_FLAGS: Final = 2
_INBOUND, _OUTBOUND = 1, 2
_NANOSECONDS: Final = 9
_END_OF_OPTIONS: Final = bytes(4)
_LOW_32: Final = 0xFFFF_FFFF

_pack_packet: Final = struct.Struct("<7I").pack
_pack_length: Final = struct.Struct("<I").pack
_BLOCK_START: Final = struct.Struct("<II")

PACKET_OVERHEAD: Final = 44
"""Bytes of a packet's block around its data, which is padded to a multiple of four."""


class Packets(NamedTuple):
    """Blocks in pieces to be written one behind the other; their bytes, and how many frames they are."""

    pieces: list[bytes]
    size: int
    frames: int


def section_header(application: str) -> bytes:
    """What a file starts with; its length is left open. application: the program that writes it."""
    body = struct.pack("<IHHQ", _BYTE_ORDER_MAGIC, 1, 0, _UNKNOWN_LENGTH)
    return _block(_SECTION_HEADER, body + _option(_USER_APPLICATION, application.encode()) + _END_OF_OPTIONS)


def interface_description(name: str, snaplen: int = 0) -> bytes:
    """Interface 0. snaplen: bytes of a frame that are kept, 0 = all."""
    body = struct.pack("<HHI", _ETHERNET, 0, snaplen) + _option(_INTERFACE_NAME, name.encode())
    return _block(_INTERFACE, body + _option(_TIME_RESOLUTION, bytes((_NANOSECONDS,))) + _END_OF_OPTIONS)


def statistics(nanoseconds: int, received: int, dropped: int) -> bytes:
    """What became of the frames of interface 0: those that passed, and those of them that are missing."""
    body = struct.pack("<III", 0, nanoseconds >> 32 & _LOW_32, nanoseconds & _LOW_32)
    counts = _option(_RECEIVED, struct.pack("<Q", received)) + _option(_DROPPED, struct.pack("<Q", dropped))
    return _block(_STATISTICS, body + counts + _END_OF_OPTIONS)


STATISTICS_BYTES: Final = 52
"""Length of that block."""


def packets(
    nanoseconds: int, frames: Sequence[bytes], *, inbound: bool, snaplen: int = 0, room: int = 1 << 62
) -> Packets:
    """The frames of one moment as blocks, from the first on as many as fit into `room` bytes.

    nanoseconds: since 1970. inbound: they come from the guest. snaplen: bytes of each that are kept, 0 = all;
    the length it had is told in any case.
    """
    high, low = nanoseconds >> 32 & _LOW_32, nanoseconds & _LOW_32
    tails, pieces, size = _TAILS[inbound], list[bytes](), 0
    add = pieces.append
    for frame in frames:
        length = kept = len(frame)
        if 0 < snaplen < length:
            frame, kept = frame[:snaplen], snaplen
        total = kept + PACKET_OVERHEAD + (-kept & 3)
        size += total
        if size > room:
            return Packets(pieces, size - total, len(pieces) // 4)
        add(_pack_packet(_PACKET, total, 0, high, low, kept, length))
        add(frame)
        add(tails[kept & 3])
        add(_pack_length(total))
    return Packets(pieces, size, len(frames))


def whole_blocks(data: bytes, size: int) -> tuple[int, int]:
    """Of blocks of which only the first `size` bytes were kept: bytes and number of those that are whole."""
    end = count = 0
    while end + _BLOCK_START.size <= len(data):
        following = end + int(_BLOCK_START.unpack_from(data, end)[1])
        if following > size:
            break
        end, count = following, count + 1
    return end, count


def _block(kind: int, body: bytes) -> bytes:
    total = len(body) + 12
    return _BLOCK_START.pack(kind, total) + body + _pack_length(total)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) & 3)


def _tails(direction: int) -> tuple[bytes, ...]:
    """Padding and options behind data, by its length modulo four."""
    options = _option(_FLAGS, struct.pack("<I", direction)) + _END_OF_OPTIONS
    return tuple(bytes(-length & 3) + options for length in range(4))


_TAILS: Final = {True: _tails(_INBOUND), False: _tails(_OUTBOUND)}
