"""Frames in a stream of bytes, each behind four bytes of length, big-endian, as QEMU's ``-netdev stream`` has
them (qemu: net/stream.c, net_fill_rstate in net/net.c). Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from aero_l2.attach.errors import GarbledStream

MAX_LENGTH: Final = 4096 + 65536
"""The longest that QEMU itself takes: NET_BUFSIZE of include/net/net.h."""

_LENGTH: Final = struct.Struct("!I")


def frame_stream(frames: Iterable[bytes]) -> bytes:
    """The bytes that carry ``frames``."""
    return b"".join(part for frame in frames for part in (_LENGTH.pack(len(frame)), frame))


class Unframer:
    """Takes a stream apart, in whatever chunks it comes; keeps one unfinished frame at most."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """The frames that ``chunk`` completes.

        Raises:
            GarbledStream: a length over `MAX_LENGTH`.
        """
        rest = self._rest
        rest += chunk
        frames: list[bytes] = []
        start = 0
        while len(rest) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(rest, start)
            if length > MAX_LENGTH:
                raise GarbledStream(
                    f"it announces a frame of {length} bytes, over {MAX_LENGTH}: is it QEMU's -netdev stream?"
                )
            end = start + _LENGTH.size + length
            if end > len(rest):
                break
            frames.append(bytes(rest[start + _LENGTH.size : end]))
            start = end
        del rest[:start]
        return frames
