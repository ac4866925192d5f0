"""Outgoing WebSocket messages: prebuilt headers, joined into one buffer a batch (RFC 6455 §5.2).

A server's frames are not masked and ours are never fragmented, so a header depends on the length alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from aero_l2.wire.tunnel import FRAME_HEADER, HEADER_BYTES

_FINAL_BINARY = 0x82


def websocket_header(length: int) -> bytes:
    """Header of a final, unmasked binary frame with `length` bytes of payload."""
    if length < 126:
        return bytes((_FINAL_BINARY, length))
    if length < 1 << 16:
        return bytes((_FINAL_BINARY, 126)) + length.to_bytes(2, "big")
    return bytes((_FINAL_BINARY, 127)) + length.to_bytes(8, "big")


def websocket_message(payload: bytes) -> bytes:
    """`payload` as one binary WebSocket message."""
    return websocket_header(len(payload)) + payload


@lru_cache(maxsize=4)
def frame_prefixes(max_frame_payload: int) -> tuple[bytes, ...]:
    """What stands before an Ethernet frame of n bytes, at index n: WebSocket header and FRAME header.

    One table serves every tunnel of the process (2,049 entries, about 90 KB, with the default limit).
    """
    return tuple(websocket_header(HEADER_BYTES + n) + FRAME_HEADER for n in range(max_frame_payload + 1))


@lru_cache(maxsize=4)
def raw_prefixes(max_frame_bytes: int) -> tuple[bytes, ...]:
    """The same where a frame is the whole message: the WebSocket header alone."""
    return tuple(websocket_header(n) for n in range(max_frame_bytes + 1))


def join_frames(frames: Sequence[bytes], prefixes: Sequence[bytes]) -> bytes:
    """Ethernet frames as messages in one buffer, each behind its prefix, to be written at once."""
    parts: list[bytes] = []
    for frame in frames:
        parts.append(prefixes[len(frame)])
        parts.append(frame)
    return b"".join(parts)
