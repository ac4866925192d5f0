"""What a client may send and be sent: bytes in all, bytes in an hour, messages in a second. Pure.

Bytes are those of the payloads of WebSocket messages, both ways together; a limit is exceeded by more than
it, and 0 is none. Times in monotonic seconds.
"""

from __future__ import annotations

import enum
from typing import Final

from aero_l2.quota.hour import Account

RATE_WINDOW_S: Final = 1.0


class Exceeded(enum.Enum):
    """Which limit a message is too much for."""

    BYTES = enum.auto()
    HOURLY_BYTES = enum.auto()
    RATE = enum.auto()


class Allowance:
    """One tunnel's. It belongs to the tunnel, not to the WebSocket that it is used through.

    Args:
        max_bytes: of the tunnel's life.
        max_messages: inbound ones in a window of a second; a window begins with the first message after the
            one before is over.
        account: what the session that opened it has used in this hour, if that is limited.
    """

    __slots__ = ("_account", "_max_bytes", "_max_messages", "_messages", "_used", "_window_ends_at")

    def __init__(self, max_bytes: int = 0, max_messages: int = 0, account: Account | None = None) -> None:
        self._max_bytes = max_bytes
        self._max_messages = max_messages
        self._account = account
        self._used = 0
        self._messages = 0
        self._window_ends_at = float("-inf")

    @property
    def is_limited(self) -> bool:
        """Whether anything can ever be exceeded; if not, nobody needs to ask."""
        return bool(self._max_bytes or self._max_messages or self._account is not None)

    @property
    def hour(self) -> tuple[int, int] | None:
        """What its session has used in this hour, over all its tunnels, and the limit; None without one."""
        return None if self._account is None else (self._account.total, self._account.limit)

    def standing(self, what: Exceeded) -> tuple[int, int]:
        """What was counted against a limit, and the limit."""
        if what is Exceeded.HOURLY_BYTES and self._account is not None:
            return self._account.total, self._account.limit
        if what is Exceeded.RATE:
            return self._messages, self._max_messages
        return self._used, self._max_bytes

    def spend(self, size: int, now: float, messages: int = 0) -> Exceeded | None:
        """Count `size` bytes, in them `messages` inbound messages: all of it or, if too much, nothing."""
        if self._max_bytes and self._used + size > self._max_bytes:
            return Exceeded.BYTES
        if messages and self._max_messages:
            if now >= self._window_ends_at:
                self._window_ends_at = now + RATE_WINDOW_S
                self._messages = 0
            if self._messages + messages > self._max_messages:
                return Exceeded.RATE
        if self._account is not None and not self._account.spend(size, now):
            return Exceeded.HOURLY_BYTES
        self._messages += messages
        self._used += size
        return None
