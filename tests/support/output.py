"""What a process has written to a pipe, up to this moment."""

from __future__ import annotations

import os
import select
import threading


class Output:
    """Lines of a pipe. A thread empties it, so that the writer never waits; whoever looks empties it, too, so
    that what was written before is there."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lines: list[str] = []
        self._rest = b""
        self._has_ended = False
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._empty, daemon=True)
        self._thread.start()

    def lines(self) -> list[str]:
        """Whole lines so far, each with its end; after the end of all what had none, too."""
        self._take()
        with self._lock:
            return list(self._lines)

    def join(self, timeout_s: float) -> None:
        """Wait until nobody has it open for writing."""
        self._thread.join(timeout_s)

    def _empty(self) -> None:
        waiting = select.poll()  # of its own: a poll object serves one thread at a time
        waiting.register(self._fd, select.POLLIN)
        while not self._has_ended:
            waiting.poll()
            self._take()

    def _take(self) -> None:
        with self._lock:
            while not self._has_ended and self._poll.poll(0):
                data = os.read(self._fd, 1 << 16)
                self._has_ended = not data
                *whole, self._rest = (self._rest + data).split(b"\n")
                self._lines += [f"{line.decode(errors='replace')}\n" for line in whole]
                if self._has_ended and self._rest:
                    self._lines.append(self._rest.decode(errors="replace"))
