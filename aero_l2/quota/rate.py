"""How often a client may do something: a token bucket each (RFC 3290 §5.1.3). Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

MAX_CLIENTS: Final = 16_384
"""Clients that are remembered; one more forgets the one that was heard of longest ago."""
_WINDOW_S: Final = 60.0


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class RateLimit:
    """At most `per_minute` at once, and as many a minute in the long run; 0 is no limit.

    `per_minute` may be replaced at any time. A forgotten client starts with a full bucket again, so whoever
    commands more than `MAX_CLIENTS` addresses can reset the buckets of others, never empty them.
    """

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def allow(self, client: str, now: float) -> bool:
        """Whether `client` may at `now` (monotonic seconds); counts the attempt if it may."""
        limit = self.per_minute
        if limit == 0:
            return True
        bucket = self._bucket(client, now)
        refilled = bucket.tokens + (now - bucket.filled_at) * limit / _WINDOW_S
        bucket.tokens, bucket.filled_at = min(float(limit), refilled), now
        if bucket.tokens < 1.0:
            return False
        bucket.tokens -= 1.0
        return True

    @property
    def retry_after_s(self) -> int:
        """Seconds after which one more attempt is free, at the latest."""
        return max(1, -(-int(_WINDOW_S) // self.per_minute)) if self.per_minute else 1

    def _bucket(self, client: str, now: float) -> _Bucket:
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = self._buckets[client] = _Bucket(float(self.per_minute), now)
            if len(self._buckets) > MAX_CLIENTS:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(client)
        return bucket
