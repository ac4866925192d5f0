"""Whether a client is still there that has no PING of its own: asked by WebSocket pings (RFC 6455 §5.5.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

PING_INTERVAL_S: Final = 30.0
UNANSWERED_PINGS: Final = 3


class Pinged(Protocol):
    """The connection that is asked."""

    heard: bool
    """Set by it whenever bytes of the peer arrive."""

    @property
    def is_listening(self) -> bool:
        """Whether it reads what arrives."""

    def ping(self) -> None:
        """Send a ping."""


class Keepalive:
    """Pings `link` each `interval_s` seconds from `start` to `stop`, and calls `gone`, once, when nothing at
    all has come back for `UNANSWERED_PINGS` of them.

    Any byte is an answer. While the link does not read nothing can come, and nothing is counted.
    """

    def __init__(self, link: Pinged, interval_s: float, gone: Callable[[], None]) -> None:
        self._link = link
        self._interval_s = interval_s
        self._gone = gone
        self._unanswered = 0
        self._pinged = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin; the first ping is an interval away."""
        self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._look)

    def stop(self) -> None:
        """Ask no more; idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._count()
        if self._unanswered >= UNANSWERED_PINGS:
            self._timer = None
            self._gone()
            return
        self._link.ping()
        self._pinged = True
        self.start()

    def _count(self) -> None:
        """Judge the interval that is over."""
        link = self._link
        if link.heard:
            self._unanswered = 0
        elif self._pinged and link.is_listening:
            self._unanswered += 1
        link.heard = False
