"""Why tunnels end: one table from the reason to everything that reason makes anyone see.

Close codes are those of RFC 6455 §7.4; the texts are part of the protocol. docs/protocol.md has the same
table for people, and a test compares them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Literal

from aero_l2.quota.traffic import Exceeded
from aero_l2.wire.tunnel import ErrorCode

LogLevel = Literal["debug", "info", "warning", "error"]
MetricName = Literal[
    "idle_timeouts",
    "sessions_closed_quota_bytes",
    "sessions_closed_quota_fps",
    "sessions_closed_backpressure",
]


class Reason(enum.Enum):
    """Why a tunnel ends, as log and metrics spell it (`aero_l2_sessions_closed_total`)."""

    MALFORMED_MESSAGE = "malformed_message"
    BYTE_QUOTA = "byte_quota"
    HOURLY_BYTE_QUOTA = "hourly_byte_quota"
    FRAME_RATE_QUOTA = "frame_rate_quota"
    BACKPRESSURE = "backpressure"
    IDLE_TIMEOUT = "idle_timeout"
    SESSION_TOO_LONG = "session_too_long"
    SESSION_EXPIRED = "session_expired"
    KICKED = "kicked"
    SHUTDOWN = "shutdown"
    TUNNEL_FAILED = "tunnel_failed"
    WEBSOCKET_FAILED = "websocket_failed"
    PEER_CLOSED = "peer_closed"
    PEER_GONE = "peer_gone"
    PEER_SILENT = "peer_silent"
    NOT_RESUMED = "not_resumed"
    CUT_OFF = "cut_off"


@dataclass(frozen=True, slots=True)
class Closing:
    """What a reason makes visible.

    error_code: code of the ERROR message sent first, where the framing has one; None for no such message.
    close_code: code of our close frame, None where we send none of our own.
    text: text of ERROR and close frame; empty where the occasion supplies it.
    metric: attribute of `Metrics` that counts it, besides the one that counts all by reason.
    """

    error_code: ErrorCode | None
    close_code: int | None
    text: str
    log_level: LogLevel
    metric: MetricName | None = None


QUOTA_REASONS: Final = {
    Exceeded.BYTES: Reason.BYTE_QUOTA,
    Exceeded.HOURLY_BYTES: Reason.HOURLY_BYTE_QUOTA,
    Exceeded.RATE: Reason.FRAME_RATE_QUOTA,
}

CLOSINGS: Final[dict[Reason, Closing]] = {
    Reason.MALFORMED_MESSAGE: Closing(ErrorCode.PROTOCOL_ERROR, 1008, "", "info"),
    Reason.BYTE_QUOTA: Closing(
        ErrorCode.QUOTA_BYTES, 1008, "byte quota exceeded", "info", "sessions_closed_quota_bytes"
    ),
    Reason.HOURLY_BYTE_QUOTA: Closing(
        ErrorCode.QUOTA_BYTES, 1008, "hourly byte quota exceeded", "info", "sessions_closed_quota_bytes"
    ),
    Reason.FRAME_RATE_QUOTA: Closing(
        ErrorCode.QUOTA_FPS, 1008, "frame rate quota exceeded", "info", "sessions_closed_quota_fps"
    ),
    Reason.BACKPRESSURE: Closing(
        ErrorCode.BACKPRESSURE,
        1008,
        "outbound websocket backpressure",
        "warning",
        "sessions_closed_backpressure",
    ),
    Reason.IDLE_TIMEOUT: Closing(None, 1008, "idle timeout", "info", "idle_timeouts"),
    Reason.SESSION_TOO_LONG: Closing(None, 1008, "session time limit reached", "info"),
    Reason.SESSION_EXPIRED: Closing(None, 1008, "session expired", "info"),
    Reason.KICKED: Closing(None, 1008, "closed by the operator", "info"),
    Reason.SHUTDOWN: Closing(None, 1001, "shutting down", "info"),
    Reason.TUNNEL_FAILED: Closing(None, 1011, "tunnel failed", "error"),
    # The library has sent its close frame (1002, 1007 or, over the message cap, 1009) or echoed the peer's.
    Reason.WEBSOCKET_FAILED: Closing(None, None, "", "info"),
    Reason.PEER_CLOSED: Closing(None, None, "", "info"),
    Reason.PEER_GONE: Closing(None, None, "", "info"),
    Reason.PEER_SILENT: Closing(None, 1008, "no answer to pings", "info"),
    # The WebSocket broke, and nobody came back in time, or the client needed the room for a new tunnel.
    Reason.NOT_RESUMED: Closing(None, None, "", "info"),
    # No time for a close frame: the process ends at once, or the grace time is over.
    Reason.CUT_OFF: Closing(None, None, "", "warning"),
}
