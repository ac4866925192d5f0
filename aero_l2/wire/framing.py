"""How Ethernet frames travel in WebSocket messages: as FRAMEs of the tunnel protocol, or as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

from aero_l2.wire.send import frame_prefixes, raw_prefixes, websocket_message
from aero_l2.wire.tunnel import HEADER_BYTES, ErrorCode, Inbound, Limits, encode_error, sort_batch

FramingName = Literal["aero-l2-tunnel-v1", "raw"]


@dataclass(frozen=True, slots=True)
class Framing:
    """One way to do it; shared by all tunnels that use it.

    max_message: bytes of the largest WebSocket message of a client.
    prefixes: what is written before a frame of n bytes, at index n; there is none for larger frames.
    overhead: bytes of a message's payload that are not the frame's.
    sort: the messages of one read, in order → what they ask for.
    error: the bytes that tell a client of an error; empty where the framing has no words for it.
    pinged: the server asks by WebSocket pings whether the client is there, which cannot ask by itself.
    has_pings: there are PINGs in it, which measure the way.
    """

    name: FramingName
    max_message: int
    prefixes: Sequence[bytes]
    overhead: int
    sort: Callable[[Sequence[bytes]], Inbound]
    error: Callable[[ErrorCode, str], bytes]
    pinged: bool
    has_pings: bool


@lru_cache(maxsize=4)
def framing(name: FramingName, limits: Limits) -> Framing:
    """The framing of that name within these limits: made, with its table, when the first tunnel wants it."""
    return _raw(limits) if name == "raw" else _tunnel(limits)


def _tunnel(limits: Limits) -> Framing:
    def error(code: ErrorCode, text: str) -> bytes:
        return websocket_message(encode_error(code, text, limits.max_control_payload))

    return Framing(
        "aero-l2-tunnel-v1",
        limits.max_message,
        frame_prefixes(limits.max_frame_payload),
        HEADER_BYTES,
        partial(sort_batch, limits=limits),
        error,
        pinged=False,
        has_pings=True,
    )


def _raw(limits: Limits) -> Framing:
    """One binary message is one Ethernet frame, both ways, and there is nothing else (docs/v86.md)."""
    size = limits.max_frame_payload
    return Framing(
        "raw",
        size,
        raw_prefixes(size),
        0,
        _all_frames,
        lambda code, text: b"",
        pinged=True,
        has_pings=False,
    )


def _all_frames(messages: Sequence[bytes]) -> Inbound:
    return Inbound(list(messages), [], [], None)
