"""The settings of what one client may use, declared: a part of `aero_l2.config.variables.VARIABLES`."""

from __future__ import annotations

from typing import Final

from aero_l2.config.values import Number
from aero_l2.config.variable import NO_LIMIT, Theme, Variable

_MANY: Final = 1_000_000
_DAY_MS: Final = 86_400_000
_HOUR_S: Final = 3_600
_YEAR_S: Final = 31_536_000
_MAX_BYTES: Final = 10**15

_bytes = Number(0, _MAX_BYTES, NO_LIMIT)

TUNNEL_THEME: Final = Theme("How much and how long", (
    Variable(
        "max_bytes_per_connection", "AERO_L2_MAX_BYTES_PER_CONNECTION", "0", _bytes,
        "Payload bytes of a tunnel's WebSocket messages, both ways together; more closes it "
        "(`byte quota exceeded`).", "bytes", reloadable=True,
    ),
    Variable(
        "max_bytes_per_principal_hour", "AERO_L2_MAX_BYTES_PER_PRINCIPAL_HOUR", "0", _bytes,
        "The same over all tunnels of a `sid` of cookie or JWT in any hour; more closes them "
        "(`hourly byte quota exceeded`), and new ones are refused until there is room.", "bytes",
        reloadable=True,
    ),
    Variable(
        "max_frames_per_second", "AERO_L2_MAX_FRAMES_PER_SECOND", "0", Number(0, _MANY, NO_LIMIT),
        "Messages of a client in a second; more closes its tunnel (`frame rate quota exceeded`). "
        "AERO_L2_MAX_PACKETS_PER_SECOND drops instead.", "messages/s", reloadable=True,
    ),
    Variable(
        "max_session_seconds", "AERO_L2_MAX_SESSION_SECONDS", "0", Number(0, _YEAR_S, NO_LIMIT),
        "A tunnel that has been open for so long is closed (`session time limit reached`).", "s",
        reloadable=True,
    ),
    Variable(
        "idle_timeout_ms", "AERO_L2_IDLE_TIMEOUT_MS", "0", Number(0, _DAY_MS, "never"),
        "A tunnel whose client has sent no message for so long is closed (`idle timeout`).", "ms",
        reloadable=True,
    ),
    Variable(
        "ping_interval_ms", "AERO_L2_PING_INTERVAL_MS", "0", Number(0, _DAY_MS, "none"),
        "The server sends a PING so often, to measure round trips (`l2_ping_rtt_ms`). Answers are messages, "
        "so a client that is there is never idle then.", "ms", reloadable=True,
    ),
    Variable(
        "resume_seconds", "AERO_L2_RESUME_SECONDS", "0", Number(0, _HOUR_S, "never"),
        "When the WebSocket of a client that can resume breaks, its network is kept for so long, connections "
        "included, and counts as a tunnel (docs/protocol.md).", "s", reloadable=True,
    ),
))  # fmt: skip
