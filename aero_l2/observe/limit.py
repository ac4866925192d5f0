"""Log lines that clients can provoke at will, limited: a flood of refusals must not fill a disk."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import structlog

BURST: Final = 10
WINDOW_S: Final = 60.0
MAX_KINDS: Final = 64
OTHER_TEXTS: Final = "(other texts)"


class Kind(NamedTuple):
    """Lines that are limited together. `text` must not hold what a client chose."""

    level: Literal["info", "warning", "error"]
    event: str
    text: str


@dataclass(slots=True)
class _Window:
    ends_at: float
    admitted: int = 0
    left_out: int = 0


class LineLimit:
    """Which lines are written: `burst` of a kind in `window_s` seconds from its first. Pure.

    Past `max_kinds` kinds at a time, those of one level and event share a kind called `OTHER_TEXTS`. Times in
    seconds of one monotonic clock.
    """

    def __init__(self, *, burst: int = BURST, window_s: float = WINDOW_S, max_kinds: int = MAX_KINDS) -> None:
        self._burst = burst
        self._window_s = window_s
        self._max_kinds = max_kinds
        self._windows: dict[Kind, _Window] = {}

    @property
    def next_end(self) -> float | None:
        """When the window that ends first does so; None if there is none."""
        return next((window.ends_at for window in self._windows.values()), None)

    def admit(self, kind: Kind, now: float) -> bool:
        """Whether a line of this kind is written; call `ended` before."""
        if kind not in self._windows and len(self._windows) >= self._max_kinds:
            kind = kind._replace(text=OTHER_TEXTS)
        window = self._windows.setdefault(kind, _Window(now + self._window_s))
        if window.admitted < self._burst:
            window.admitted += 1
            return True
        window.left_out += 1
        return False

    def ended(self, now: float) -> list[tuple[Kind, int]]:
        """Forget windows that are over: the kinds of which lines were left out, and how many."""
        left_out = []
        while self._windows:
            kind, window = next(iter(self._windows.items()))
            if window.ends_at > now:
                break
            del self._windows[kind]
            if window.left_out:
                left_out.append((kind, window.left_out))
        return left_out


class LimitedLog:
    """Writes lines to `log` as a `LineLimit` lets them; in place of the others comes a count once a window.

    Used within an event loop, whose clock it takes; `close` writes the counts that are due later.
    """

    def __init__(self, log: structlog.typing.FilteringBoundLogger, limit: LineLimit | None = None) -> None:
        self._log = log
        self._limit = limit if limit is not None else LineLimit()
        self._timer: asyncio.TimerHandle | None = None

    def write(
        self,
        level: Literal["info", "warning", "error"],
        event: str,
        text: str = "",
        *,
        kind: str | None = None,
        **fields: object,
    ) -> None:
        """One line; `text` says why, where that is not clear, and makes, with level and event, its kind.

        kind: stands for the text there, where a client chose a part of that.
        """
        loop = asyncio.get_running_loop()
        self._count_ended(loop.time())
        limited_as = Kind(level, event, text if kind is None else kind)
        if self._limit.admit(limited_as, loop.time()):
            said = {"text": text, **fields} if text else fields
            getattr(self._log, level)(event, **said)
        elif self._timer is None:
            self._watch(loop)

    def close(self) -> None:
        """Write what was counted so far."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._count_ended(float("inf"))

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        end = self._limit.next_end
        self._timer = loop.call_at(end, self._look, loop) if end is not None else None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._count_ended(loop.time())
        self._watch(loop)

    def _count_ended(self, now: float) -> None:
        for kind, lines in self._limit.ended(now):
            getattr(self._log, kind.level)("lines left out", of=kind.event, text=kind.text, lines=lines)
