"""The log of netd and of the supervisor: lines on stderr, which the server writes its own to.

Their number is bounded, whatever netd is asked, and writing one never fails and never waits for long: a full
disk, a reader that is gone or one that sleeps costs lines, not tunnels.
"""

import contextlib
import os
import select
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import Final, TextIO

from netns.lineshape import RANKS, Level, Style, render

LINES_PER_WINDOW = 20
WINDOW_S = 10.0
WAIT_S: Final = 0.005
"""For a reader that is slow, once; no line after that waits until it has read."""


class LineLimit:
    """Lets `LINES_PER_WINDOW` lines through in each window of `WINDOW_S` and counts the rest."""

    def __init__(self) -> None:
        self._window = 0.0
        self._lines = 0
        self._left_out = 0

    def admit(self, now: float) -> int | None:
        """At ``now`` (monotonic seconds): how many lines were left out before this one, None to leave it
        out, too."""
        before = 0
        if now - self._window >= WINDOW_S:
            before, self._left_out = self._left_out, 0
            self._window, self._lines = now, 0
        if self._lines >= LINES_PER_WINDOW:
            self._left_out += 1
            return None
        self._lines += 1
        return before


class Outlet:
    """Where lines go: a descriptor that others write to as well. ``lost`` lines could not be written."""

    def __init__(self, fd: int, wait_s: float = WAIT_S) -> None:
        self._fd = fd
        self._wait_s = wait_s
        self._sleeps = False
        self._is_torn = False
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self.lost = 0

    def write(self, line: str) -> bool:
        """The line, whole if it is no longer than `MAX_LINE`, or nothing; False if it is lost."""
        ready = self._poll.poll(0 if self._sleeps else self._wait_s * 1000)
        self._sleeps = not ready
        data = f"{line}\n".encode(errors="backslashreplace")
        written = 0
        if ready:
            with contextlib.suppress(OSError):
                written = os.write(self._fd, b"\n" + data if self._is_torn else data) - self._is_torn
        if written > 0:
            self._is_torn = written < len(data)  # a disk that has just become full
        if written < len(data):
            self.lost += 1
        return written == len(data)


class Log:
    """Lines of one process. ``component``: its name in them. ``level``: the least important ones."""

    def __init__(self, component: str, level: Level = "info", style: Style = "console", fd: int = 2) -> None:
        self._component = component
        self._rank = RANKS[level]
        self._style = style
        self._outlet = Outlet(fd)
        self._limit = LineLimit()

    def __call__(self, level: Level, event: str, **fields: object) -> None:
        """One line, unless there were too many of late."""
        if RANKS[level] < self._rank:
            return
        before = self._limit.admit(time.monotonic())
        if before is None:
            return
        self._outlet.lost += before
        if lost := self._outlet.lost:
            said = self._write("warning", "lines left out", {"lines": lost})
            self._outlet.lost = 0 if said else lost
        self._write(level, event, fields)

    def _write(self, level: Level, event: str, fields: Mapping[str, object]) -> bool:
        return self._outlet.write(render(self._style, time.time(), level, event, self._component, fields))


_log = Log("netns")


def log(level: Level, event: str, **fields: object) -> None:
    """One line of this process, unless there were too many of late. ``event``: one of docs/logs.md."""
    _log(level, event, **fields)


def configure(component: str, level: Level, style: Style) -> None:
    """How this process logs from now on, what Python says of failures and warnings included."""
    global _log
    _log = Log(component, level, style)
    sys.excepthook = _failed
    threading.excepthook = _thread_failed
    sys.unraisablehook = _unraisable
    warnings.showwarning = _warned


def style_of(format: str, environment: Mapping[str, str]) -> Style:
    """The style for ``auto``, ``console`` or ``json`` on this process's stderr."""
    is_terminal = False
    with contextlib.suppress(OSError):
        is_terminal = os.isatty(2)
    if format == "json" or (format == "auto" and not is_terminal):
        return "json"
    wants_none = environment.get("NO_COLOR") or environment.get("TERM") == "dumb"
    return "color" if is_terminal and not wants_none else "console"


def _failed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log("error", "process fails", exception=_shown(kind, error, trace))


def _thread_failed(of: threading.ExceptHookArgs) -> None:
    thread = of.thread.name if of.thread is not None else None
    shown = _shown(of.exc_type, of.exc_value, of.exc_traceback)
    log("error", "thread fails", thread=thread, exception=shown)


def _unraisable(of: "sys.UnraisableHookArgs") -> None:
    shown = _shown(of.exc_type, of.exc_value, of.exc_traceback)
    log("error", "error without a place", text=of.err_msg, exception=shown)


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    log("warning", "Python warns", text=f"{category.__name__}: {message}", place=f"{filename}:{lineno}")


def _shown(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> str:
    return "".join(traceback.format_exception(kind, error, trace)).rstrip()
