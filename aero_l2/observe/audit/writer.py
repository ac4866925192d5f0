"""Lines on their way to disk: a bounded queue, and the one thread that writes.

Where writing fails, lines wait and are tried again; what the queue has no room for is counted, and said by a
line as soon as there is room again.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from aero_l2.observe.audit.files import Output

MAX_LINES: Final = 10_000
"""That wait, half a kilobyte each."""
GATHER_S: Final = 0.1
"""From the first line to writing all there are."""
RETRY_S: Final = 1.0
CLOSE_S: Final = 5.0
"""What writing the last lines may take."""
_BATCH: Final = 500


class Writer:
    """Takes lines on one thread, the loop's, and writes them on its own.

    Args:
        lost: told how many lines are, at once.
        lost_line: makes the line that says so.
        failed: told on the writing thread, in words, when writing begins to fail; None: when it works again.
    """

    def __init__(
        self,
        output: Output,
        *,
        lost: Callable[[int], None],
        lost_line: Callable[[int], bytes],
        failed: Callable[[OSError | None], None],
        max_lines: int = MAX_LINES,
    ) -> None:
        self._output = output
        self._lost = lost
        self._lost_line = lost_line
        self._failed = failed
        self._max_lines = max_lines
        self._queue: deque[bytes] = deque()
        self._held: list[bytes] = []
        self._left_out = 0
        self._failing = False
        self._reopen = False
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit log", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> bool:
        """Have a line written, in order; False where there is no room, and it is lost."""
        if len(self._queue) + len(self._held) >= self._max_lines:
            self._left_out += 1
            self._lost(1)
            return False
        if self._left_out:
            self._queue.append(self._lost_line(self._left_out))
            self._left_out = 0
        self._queue.append(line)
        if not self._wake.is_set():
            self._wake.set()
        return True

    def reopen(self) -> None:
        """Write to a file of that name from the next line on."""
        self._reopen = True
        self._wake.set()

    def close(self) -> int:
        """Write what waits, for at most `CLOSE_S`; blocks. Returns how many lines could not be written."""
        if self._left_out:
            self._queue.append(self._lost_line(self._left_out))
        self._closing.set()
        self._wake.set()
        self._thread.join(CLOSE_S)
        return len(self._queue) + len(self._held)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._closing.wait(GATHER_S)
            self._wake.clear()
            if self._reopen:
                self._reopen = False
                self._attempt(self._output.reopen)
            is_last = self._closing.is_set()
            while self._queue or self._held:
                if not self._attempt(self._write) and (is_last or self._closing.wait(RETRY_S)):
                    break
            if is_last:
                return

    def _write(self) -> None:
        while self._queue and len(self._held) < _BATCH:
            self._held.append(self._queue.popleft())
        for written in self._output.write(tuple(self._held)):
            del self._held[:written]

    def _attempt(self, act: Callable[[], None]) -> bool:
        try:
            act()
        except OSError as error:
            if not self._failing:
                self._failed(error)
            self._failing = True
            return False
        if self._failing:
            self._failing = False
            self._failed(None)
        return True
