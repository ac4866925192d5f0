"""Lines on stderr, which netd shares with the server's log: a bounded number, whatever it is asked."""

import sys
import time

LINES_PER_WINDOW = 20
WINDOW_S = 10.0


class LineLimit:
    """Lets `LINES_PER_WINDOW` lines through in each window of `WINDOW_S` and counts the rest."""

    def __init__(self) -> None:
        self._window = 0.0
        self._lines = 0
        self._left_out = 0

    def admit(self, now: float) -> list[str] | None:
        """At ``now`` (monotonic seconds): what to say before the next line, None to leave that out."""
        before: list[str] = []
        if now - self._window >= WINDOW_S:
            if self._left_out:
                before.append(f"{self._left_out} more lines were left out")
            self._window, self._lines, self._left_out = now, 0, 0
        if self._lines >= LINES_PER_WINDOW:
            self._left_out += 1
            return None
        self._lines += 1
        return before


_limit = LineLimit()


def log(text: str) -> None:
    """One line, unless there were too many of late."""
    before = _limit.admit(time.monotonic())
    for line in () if before is None else (*before, text):
        print(f"netd: {line}", file=sys.stderr, flush=True)
