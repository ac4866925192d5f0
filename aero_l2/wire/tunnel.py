"""Codec of `aero-l2-tunnel-v1`: one WebSocket binary message is one protocol message.

    A2 | 03 | type:u8 | flags:u8 | payload

docs/protocol.md describes the messages; tests/vectors holds the interoperability vectors.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from aero_l2.errors import MalformedMessage

SUBPROTOCOL: Final = "aero-l2-tunnel-v1"
MAGIC: Final = 0xA2
VERSION: Final = 0x03
HEADER_BYTES: Final = 4
DEFAULT_MAX_FRAME_PAYLOAD: Final = 2048
DEFAULT_MAX_CONTROL_PAYLOAD: Final = 256

_ERROR_FIELDS_BYTES: Final = 4
_U16_MAX: Final = 0xFFFF


class MessageType(enum.IntEnum):
    """Types a peer may send; others are ignored."""

    FRAME = 0x00
    PING = 0x01
    PONG = 0x02
    RESUME_SECRET = 0x10
    RESUME_STATE = 0x11
    ERROR = 0x7F


RESUME_SUBPROTOCOL: Final = "aero-l2-resume"
"""Offered by a client that wants to take its tunnel up again; behind a dot the secret of a former one."""
RESUME_SECRET_BYTES: Final = 32
"""Of a secret as it is sent: 192 random bits in base64url, all of whose characters a subprotocol may have."""
FRESH: Final = b"\x00"
RESUMED: Final = b"\x01"
"""Payloads of RESUME_STATE: whether the LAN is a new one."""


class ErrorCode(enum.IntEnum):
    """Codes of an ERROR message."""

    PROTOCOL_ERROR = 1
    AUTH_REQUIRED = 2
    AUTH_INVALID = 3
    ORIGIN_MISSING = 4
    ORIGIN_DENIED = 5
    QUOTA_BYTES = 6
    QUOTA_FPS = 7
    QUOTA_CONNECTIONS = 8
    BACKPRESSURE = 9


FRAME_HEADER: Final = bytes((MAGIC, VERSION, MessageType.FRAME, 0))
_FRAME_START: Final = FRAME_HEADER[:3]


@dataclass(frozen=True, slots=True)
class Limits:
    """Payload limits in bytes; an unknown type falls under `max_control_payload`."""

    max_frame_payload: int = DEFAULT_MAX_FRAME_PAYLOAD
    max_control_payload: int = DEFAULT_MAX_CONTROL_PAYLOAD

    @property
    def max_message(self) -> int:
        """Bytes of the largest message the WebSocket layer lets through."""
        return HEADER_BYTES + max(self.max_frame_payload, self.max_control_payload)

    def of(self, message_type: int) -> int:
        """Payload limit of a type, in bytes."""
        return self.max_frame_payload if message_type == MessageType.FRAME else self.max_control_payload


class Message(NamedTuple):
    """A decoded message; `type` may be one that `MessageType` does not know."""

    type: int
    flags: int
    payload: bytes


class ErrorMessage(NamedTuple):
    """An ERROR payload; `code` is None where the peer sent plain text."""

    code: int | None
    text: str


class Inbound(NamedTuple):
    """The messages of one read, sorted; after a `fault` nothing more was looked at.

    A tuple, since one is made for each read: a frozen dataclass takes three times as long.
    """

    frames: list[bytes]
    pings: list[bytes]
    pongs: list[bytes]
    fault: MalformedMessage | None


def encode(message_type: int, payload: bytes) -> bytes:
    """One message, flags 0; the caller keeps to the limits."""
    return bytes((MAGIC, VERSION, message_type, 0)) + payload


def decode(message: bytes, limits: Limits) -> Message:
    """Take a message apart.

    Raises:
        MalformedMessage: too short, wrong magic or version, or a payload over its type's limit.
    """
    size = len(message)
    if size < HEADER_BYTES:
        raise MalformedMessage(f"message too short: {size} < {HEADER_BYTES}")
    magic, version, message_type, flags = message[:HEADER_BYTES]
    if magic != MAGIC:
        raise MalformedMessage(f"invalid magic: 0x{magic:02x}")
    if version != VERSION:
        raise MalformedMessage(f"unsupported version: 0x{version:02x}")
    limit = limits.of(message_type)
    if size - HEADER_BYTES > limit:
        raise MalformedMessage(f"payload too large: {size - HEADER_BYTES} > {limit}")
    return Message(message_type, flags, message[HEADER_BYTES:])


def sort_batch(messages: Sequence[bytes], limits: Limits) -> Inbound:
    """Sort the messages of one read into Ethernet frames, PINGs and PONGs; stop at the first malformed one.

    FRAMEs are recognised by their first three bytes (flag bits are ignored), everything else goes through
    `decode`. ERROR and unknown types ask for nothing.
    """
    frames: list[bytes] = []
    pings: list[bytes] = []
    pongs: list[bytes] = []
    max_frame_message = HEADER_BYTES + limits.max_frame_payload
    for message in messages:
        if message[:3] == _FRAME_START and HEADER_BYTES <= len(message) <= max_frame_message:
            frames.append(message[HEADER_BYTES:])
            continue
        try:
            decoded = decode(message, limits)
        except MalformedMessage as fault:
            return Inbound(frames, pings, pongs, fault.with_traceback(None))  # whose frames hold it
        if decoded.type == MessageType.PING:
            pings.append(decoded.payload)
        elif decoded.type == MessageType.PONG:
            pongs.append(decoded.payload)
    return Inbound(frames, pings, pongs, None)


def encode_resume(secret: str, *, is_resumed: bool) -> tuple[bytes, bytes]:
    """What a client that may resume is told first: its secret, and whether the LAN is the one it had."""
    state = RESUMED if is_resumed else FRESH
    return encode(MessageType.RESUME_SECRET, secret.encode()), encode(MessageType.RESUME_STATE, state)


def encode_error(code: ErrorCode, text: str, max_control_payload: int) -> bytes:
    """An ERROR message whose text is cut at a character boundary so that the payload fits.

    Where not even code and length fit, the payload is empty.
    """
    room = min(max_control_payload - _ERROR_FIELDS_BYTES, _U16_MAX)
    if room < 0:
        return encode(MessageType.ERROR, b"")
    body = cut_utf8(text, room)
    fields = int(code).to_bytes(2, "big") + len(body).to_bytes(2, "big")
    return encode(MessageType.ERROR, fields + body)


def decode_error(payload: bytes) -> ErrorMessage:
    """Read an ERROR payload: the structured form if its length matches exactly, else plain UTF-8.

    Never fails; bytes that are not UTF-8 become U+FFFD.
    """
    if len(payload) >= _ERROR_FIELDS_BYTES:
        text_bytes = int.from_bytes(payload[2:4], "big")
        if text_bytes == len(payload) - _ERROR_FIELDS_BYTES:
            text = payload[_ERROR_FIELDS_BYTES:].decode("utf-8", "replace")
            return ErrorMessage(int.from_bytes(payload[:2], "big"), text)
    return ErrorMessage(None, payload.decode("utf-8", "replace"))


def cut_utf8(text: str, max_bytes: int) -> bytes:
    """The longest prefix of `text` that is whole characters and at most `max_bytes` of UTF-8."""
    return text.encode("utf-8", "replace")[:max_bytes].decode("utf-8", "ignore").encode("utf-8")
