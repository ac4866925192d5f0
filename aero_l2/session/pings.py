"""The server's PINGs of the tunnel protocol: when the next one is due, and how long an answer took. Pure.

Times in seconds of one monotonic clock.
"""

from __future__ import annotations

from typing import Final

PING_BYTES: Final = 8
PATIENCE: Final = 3
"""Intervals after which an answer no longer counts, and the next PING goes out without it."""
LEAST_PATIENCE_S: Final = 1.0
_IDS: Final = 1 << 64


class PingClock:
    """One PING at a time, its payload a number (u64, big-endian) that no other PING of the tunnel has."""

    def __init__(self, interval_s: float, now: float) -> None:
        self._interval_s = interval_s
        self._patience_s = max(PATIENCE * interval_s, LEAST_PATIENCE_S)
        self._id = 0
        self._sent_at = now
        self._is_answered = True
        self.due_at = now
        """When the next one goes out; the first does at once."""

    def send(self, now: float) -> bytes:
        """The payload of a PING that goes out now; one that was not answered never will be."""
        self._id = (self._id + 1) % _IDS
        self._sent_at = now
        self._is_answered = False
        self.due_at = now + self._patience_s
        return self._id.to_bytes(PING_BYTES, "big")

    def answered(self, payload: bytes, now: float) -> float | None:
        """Seconds that this PONG's PING was under way; None if it answers none that is awaited."""
        if self._is_answered or payload != self._id.to_bytes(PING_BYTES, "big"):
            return None
        self._is_answered = True
        self.due_at = self._sent_at + self._interval_s
        return now - self._sent_at
