"""Whether a client takes nothing: pure arithmetic on bytes written and bytes still outstanding.

Bytes count as taken when the peer's TCP acknowledged them, so a slow reader is never a stalled one.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class StallClock:
    """Remembers the last progress of one connection. Times in seconds of one monotonic clock.

    timeout_s: without progress for so long while bytes wait, the client is stalled.
    """

    timeout_s: float
    _acknowledged: int = 0
    _progress_at: float = 0.0

    def start(self, now: float, written: int, outstanding: int) -> None:
        """Bytes wait from now on."""
        self._acknowledged = written - outstanding
        self._progress_at = now

    def is_stalled(self, now: float, written: int, outstanding: int) -> bool:
        """Look at the counters again; `written` in total, `outstanding` of them not acknowledged."""
        acknowledged = written - outstanding
        if outstanding == 0 or acknowledged > self._acknowledged:
            self._acknowledged = acknowledged
            self._progress_at = now
            return False
        return now - self._progress_at >= self.timeout_s

    def next_look_s(self, now: float) -> float:
        """Seconds until looking again is worth it: a quarter of the time-out, or what is left of it."""
        left = self._progress_at + self.timeout_s - now
        return max(0.001, min(self.timeout_s / 4, left))
