"""What all new tunnels of a process share, from its settings."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

from aero_l2.config import Settings
from aero_l2.observe.capture.captures import Captures
from aero_l2.quota.bucket import TokenBucket
from aero_l2.session.keepalive import PING_INTERVAL_S
from aero_l2.session.lifecycle import Times


@dataclass(frozen=True, slots=True)
class TunnelOptions:
    """Options of tunnels; 0 = none wherever something has a limit.

    times: how long a tunnel waits for what. stall_timeout_s: for a client that takes nothing.
    library_only: see `Receiver`. packets_per_second: frames of a guest that are passed on; packets_burst: as
    many at once. max_bytes, max_messages: see `Allowance`. ws_ping_interval_s: between WebSocket pings, where
    the framing has them sent. captures: what captures them, None where that is off.
    """

    times: Times = Times()  # noqa: RUF009 - frozen
    stall_timeout_s: float = 10.0
    connect_timeout_s: float = 5.0
    library_only: bool = False
    packets_per_second: int = 0
    packets_burst: int = 0
    max_bytes: int = 0
    max_messages: int = 0
    ws_ping_interval_s: float = PING_INTERVAL_S
    captures: Captures | None = None

    @classmethod
    def of(
        cls,
        settings: Settings,
        *,
        ws_ping_interval_s: float = PING_INTERVAL_S,
        captures: Captures | None = None,
    ) -> Self:
        """What the settings say."""
        times = Times(
            idle_s=settings.idle_timeout_ms / 1000,
            session_s=settings.max_session_seconds,
            ping_interval_s=settings.ping_interval_ms / 1000,
            keep_s=settings.resume_seconds,
        )
        return cls(
            times=times,
            stall_timeout_s=settings.send_stall_timeout_ms / 1000,
            connect_timeout_s=settings.tcp_connect_timeout_ms / 1000,
            library_only=settings.receive_path == "library",
            packets_per_second=settings.max_packets_per_second,
            packets_burst=settings.max_packets_burst or settings.max_packets_per_second,
            max_bytes=settings.max_bytes_per_connection,
            max_messages=settings.max_frames_per_second,
            ws_ping_interval_s=ws_ping_interval_s,
            captures=captures,
        )

    def packet_rate(self) -> TokenBucket | None:
        """A new tunnel's rate of frames, None where there is no limit."""
        if not self.packets_per_second:
            return None
        return TokenBucket(self.packets_per_second, self.packets_burst, time.monotonic())
