"""How what happens is told: a live line on a terminal, log lines elsewhere, or not at all."""

from __future__ import annotations

import sys
import time
from typing import Protocol, Self, TextIO

import structlog
from rich.console import Console
from rich.live import Live
from rich.text import Text

from aero_l2.attach.rates import Rates, View, copied, rates, status_line, summary
from aero_l2.attach.relay import Counters

Value = str | int | float | bool | None
CONNECTING, OPEN, RESUMED = "connecting", "tunnel open", "tunnel resumed"
"""The events of a connection that is well."""


class Display(Protocol):
    """Where the state of a connection is told; a context manager. May block, and raise OSError."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""

    def change(self, event: str, **facts: Value) -> None:
        """Something happened."""

    def look(self, view: View) -> None:
        """How things are; called about every second."""


class Silent:
    """Says nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def change(self, event: str, **facts: Value) -> None:
        """As `Display.change`."""

    def look(self, view: View) -> None:
        """As `Display.look`."""


class Lines(Silent):
    """A line of words for each change, beside a command that has the terminal; none while all goes well."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._in_trouble = False

    def change(self, event: str, **facts: Value) -> None:
        """As `Display.change`."""
        was_in_trouble, self._in_trouble = self._in_trouble, event not in (CONNECTING, OPEN, RESUMED)
        if not (was_in_trouble or self._in_trouble):
            return
        print(f"aero-l2: {sentence(event, facts)}", file=self._stream, flush=True)


class Log(Silent):
    """structlog: a line for each change, and a summary each ``report_s`` seconds, if that is not 0."""

    def __init__(self, report_s: float) -> None:
        self._log = structlog.get_logger(component="connect")
        self._report_s = report_s
        self._meter = Meter(report_s)

    def change(self, event: str, **facts: Value) -> None:
        """As `Display.change`."""
        self._log.info(event, **facts)

    def look(self, view: View) -> None:
        """As `Display.look`."""
        if self._report_s and (average := self._meter.read(view.counters)) is not None:
            self._log.info("summary", **summary(view, average))


class LiveLine:
    """rich: one line at the bottom that changes each second, and the changes above it."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or sys.stderr, highlight=False)
        self._live = Live(Text(""), console=self._console, auto_refresh=False, transient=True)
        self._meter = Meter(0.5)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def change(self, event: str, **facts: Value) -> None:
        """As `Display.change`."""
        self._console.print(Text(f"{time.strftime('%H:%M:%S')} {sentence(event, facts)}"))

    def look(self, view: View) -> None:
        """As `Display.look`."""
        if (now := self._meter.read(view.counters)) is not None:
            line = Text(status_line(view, now), overflow="ellipsis", no_wrap=True)
            self._live.update(line, refresh=True)


class Meter:
    """Rates since the last reading, at most one each ``every_s`` seconds."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._counters = Counters()
        self._at_s = time.monotonic()

    def read(self, counters: Counters) -> Rates | None:
        """The rates, None if it is not time yet."""
        now_s = time.monotonic()
        if now_s - self._at_s < self._every_s:
            return None
        seen = rates(self._counters, counters, now_s - self._at_s)
        self._counters, self._at_s = copied(counters), now_s
        return seen


def sentence(event: str, facts: dict[str, Value]) -> str:
    """One line of words: the event, its ``why``, then the other facts."""
    rest = dict(facts)
    why = rest.pop("why", None)
    said = f"{event}: {why}" if why is not None else event
    others = ", ".join(_fact(name, value) for name, value in rest.items())
    return f"{said} ({others})" if others else said


def _fact(name: str, value: Value) -> str:
    words = name.removesuffix("_s").replace("_", " ")
    return f"{words} {value} s" if name.endswith("_s") else f"{words} {value}"
