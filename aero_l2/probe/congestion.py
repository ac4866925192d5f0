"""How much TCP has under way (RFC 5681, RFC 6928; fast recovery by RFC 6582). Pure."""

from __future__ import annotations

from typing import Final

MAX_WINDOW: Final = 262_144
_INITIAL_SEGMENTS: Final = 10
_DUPLICATES: Final = 3


class Congestion:
    """window: bytes that may be under way. Sequence numbers are plain growing integers."""

    def __init__(self, mss: int) -> None:
        self.window = _INITIAL_SEGMENTS * mss
        self._mss = mss
        self._threshold = MAX_WINDOW
        self._duplicates = 0
        self._recover: int | None = None  # while lost data is made good: the end of what was under way

    def acknowledged(self, taken: int, to: int) -> bool:
        """``taken`` bytes more have arrived, up to ``to``; True: what follows is lost, send it again."""
        self._duplicates = 0
        if self._recover is not None and to < self._recover:
            self.window = max(self.window - taken + self._mss, self._mss)
            return True
        if self._recover is not None:
            self._recover = None
            self.window = self._threshold
        elif self.window < self._threshold:
            self.window += min(taken, 2 * self._mss)
        else:
            self.window = min(self.window + max(self._mss * self._mss // self.window, 1), MAX_WINDOW)
        return False

    def duplicate(self, una: int, nxt: int) -> bool:
        """An acknowledgment of nothing new, while una to nxt is under way; True: send the first again."""
        self._duplicates += 1
        if self._recover is not None:
            self.window += self._mss
        elif self._duplicates == _DUPLICATES:
            self._halve(nxt - una)
            self._recover = nxt
            self.window = self._threshold + _DUPLICATES * self._mss
            return True
        return False

    def timed_out(self, under_way: int) -> None:
        """Nothing was acknowledged in time: begin anew."""
        self._halve(under_way)
        self.window = self._mss
        self._recover, self._duplicates = None, 0

    def _halve(self, under_way: int) -> None:
        self._threshold = max(under_way // 2, 2 * self._mss)
