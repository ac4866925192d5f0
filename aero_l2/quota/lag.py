"""When an event loop is too far behind to take on more. Pure."""

from __future__ import annotations

from typing import Final

BEHIND: Final = 3
"""So many samples in a row above the limit: a single pause, the host's too, is none of the load's doing."""
CAUGHT_UP: Final = 10
"""So many in a row under half of it, until the loop counts as on time again."""


class LagGate:
    """Judges samples of the loop's lag, with hysteresis. limit_s: seconds, 0 = never too far behind.

    `limit_s` may be replaced at any time.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._is_behind = False
        self._in_a_row = 0

    @property
    def is_behind(self) -> bool:
        """Whether the loop is too far behind now."""
        return self._is_behind and self.limit_s > 0

    def take(self, lag_s: float) -> None:
        """One sample."""
        speaks_for_a_change = lag_s < self.limit_s / 2 if self._is_behind else lag_s > self.limit_s
        self._in_a_row = self._in_a_row + 1 if speaks_for_a_change else 0
        if self._in_a_row >= (CAUGHT_UP if self._is_behind else BEHIND):
            self._is_behind = not self._is_behind
            self._in_a_row = 0
