"""A rate with room for bursts: one token bucket (RFC 3290 §5.1.3). Pure."""

from __future__ import annotations


class TokenBucket:
    """At most `burst` things at once, and `per_second` in the long run.

    It starts full. The time is passed in, in monotonic seconds; one that goes back refills nothing.
    """

    def __init__(self, per_second: float, burst: float, now: float) -> None:
        self._per_second = per_second
        self._burst = self._tokens = float(burst)
        self._filled_at = now

    def take(self, wanted: int, now: float) -> int:
        """How many of `wanted` things may happen at `now`; they are counted as done."""
        if now > self._filled_at:
            self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._per_second)
            self._filled_at = now
        granted = min(wanted, int(self._tokens))
        self._tokens -= granted
        return granted
