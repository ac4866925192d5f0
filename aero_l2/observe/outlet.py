"""Where lines of the log go: written whole or not at all, without waiting for whoever reads them."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable, Iterable
from typing import Final, TextIO

WAIT_S: Final = 0.002
"""For a reader that is slow, once; no line after that waits until it has read."""


class Outlet:
    """A stream whose writing never fails and never waits for long.

    A full disk, a reader that is gone, or one that sleeps (a terminal that was stopped, a journal that does
    not keep up) costs lines, which are counted, not tunnels. Any thread may write.

    Attributes:
        ahead: asked before each line with the number of lines lost since it was asked last; its lines go
            first.
    """

    def __init__(self, stream: TextIO, wait_s: float = WAIT_S) -> None:
        self._stream = stream
        self._wait_s = wait_s
        self._sleeps = False
        self._is_torn = False
        self._fd = _descriptor_of(stream)
        self._poll = select.poll()
        if self._fd >= 0:
            self._poll.register(self._fd, select.POLLOUT)
        self._lock = threading.RLock()
        self._lost = 0
        self.ahead: Callable[[int], Iterable[str]] = lambda lost: ()

    def write(self, text: str) -> int:
        """One line, its end included."""
        with self._lock:
            lost, self._lost = self._lost, 0
            for line in self.ahead(lost):
                if not self._write(line):
                    self._lost = lost
            if not self._write(text):
                self._lost += 1
        return len(text)

    def flush(self) -> None:
        """Nothing waits: lines are flushed as they are written."""

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        with contextlib.suppress(OSError, ValueError):
            return self._stream.isatty()
        return False

    def _write(self, text: str) -> bool:
        """Whether all of it is written."""
        if self._fd < 0:
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(text)
                return True
            return False
        ready = self._poll.poll(0 if self._sleeps else self._wait_s * 1000)
        self._sleeps = not ready
        data = text.encode(errors="backslashreplace")
        written = 0
        if ready:
            with contextlib.suppress(OSError):
                written = os.write(self._fd, b"\n" + data if self._is_torn else data) - self._is_torn
        if written > 0:
            self._is_torn = written < len(data)  # a disk that has just become full
        return written == len(data)


def _descriptor_of(stream: TextIO) -> int:
    """To be written to without the stream's buffer, which would keep what could not be written; -1: none."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return stream.fileno()
    return -1
