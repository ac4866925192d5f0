"""What TCP has received and nobody has read (RFC 9293 §3.10.7.4). Pure."""

from __future__ import annotations

from typing import Final

from dpkt.tcp import TH_FIN

from aero_l2.probe.packets import Segment

MASK: Final = 0xFFFF_FFFF
WINDOW: Final = 65_535
"""Bytes that wait unread at most, and the largest window without scaling (RFC 9293 §3.1)."""
_ACK_EVERY: Final = 2  # RFC 9293 §3.8.6.3
_MAX_EARLY: Final = 64
_HALF: Final = 0x8000_0000


class Inbox:
    """nxt: the number that comes next. fin: the other side has sent all. unacknowledged: segments."""

    def __init__(self, mss: int) -> None:
        self.nxt = 0
        self.fin = False
        self.unacknowledged = 0
        self._mss = mss
        self._data = bytearray()
        self._early: dict[int, bytes] = {}
        self._taken = 0
        self._offered = WINDOW

    @property
    def room(self) -> int:
        """Bytes that may come: the window."""
        return WINDOW - len(self._data)

    @property
    def has_ended(self) -> bool:
        """All has come, and is read."""
        return self.fin and not self._data

    @property
    def has_opened(self) -> bool:
        """Whether the window is so much larger than was said that it is worth a segment (§3.8.6.2.2)."""
        return self._taken + self.room - self._offered >= 2 * self._mss

    def acknowledge(self) -> int:
        """The number to send; what has come and the window are said with it."""
        self.unacknowledged = 0
        self._offered = self._taken + self.room
        return self.nxt

    def read(self) -> bytes:
        """All that has come in order."""
        data = bytes(self._data)
        self._data.clear()
        return data

    def take(self, came: Segment, offset: int) -> bool:
        """Take a segment that begins ``offset`` bytes after what comes next; True: acknowledge it now."""
        size = len(came.data)
        if not size and not came.flags & TH_FIN and offset == 0:
            return False
        if offset > 0:
            self._keep(came, offset)
            return True
        if offset < 0 and offset + size <= 0 and not self._is_new_fin(came, offset):
            return True
        if self.fin:
            return True
        fresh = came.data[-offset:] if offset else came.data
        taken = self._append(fresh)
        self.unacknowledged += 1
        if came.flags & TH_FIN and taken == len(fresh):
            self.fin = True
            self.nxt = (self.nxt + 1) & MASK
            return True
        filled = self._fill()
        return filled or self.unacknowledged >= _ACK_EVERY or taken < size

    def _append(self, data: bytes) -> int:
        """Take what comes next, as far as there is room; returns how many bytes."""
        taken = data[: self.room]
        self._data += taken
        self._taken += len(taken)
        self.nxt = (self.nxt + len(taken)) & MASK
        return len(taken)

    def _keep(self, came: Segment, offset: int) -> None:
        """What came early, as far as it is within the window, and there are not too many of them."""
        if len(self._early) < _MAX_EARLY and offset + len(came.data) <= self.room:
            self._early[came.seq] = came.data

    def _fill(self) -> bool:
        """Take what came early and comes next now; True: there was some, or some is still missing."""
        had_early = bool(self._early)
        for seq in sorted(self._early, key=lambda seq: difference(seq, self.nxt)):
            if (offset := difference(seq, self.nxt)) > 0:
                break
            self._append(self._early.pop(seq)[-offset:] if offset else self._early.pop(seq))
        return had_early

    def _is_new_fin(self, came: Segment, offset: int) -> bool:
        return bool(came.flags & TH_FIN) and offset + len(came.data) == 0


def difference(a: int, b: int) -> int:
    """``a`` - ``b`` of two sequence numbers: less than 2³¹ either way."""
    return (a - b + _HALF & MASK) - _HALF
