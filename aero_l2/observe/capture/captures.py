"""All captures of a process, as the event loop has them: frames are handed over here, and nothing waits.

Memory is bounded: `MAX_WAITING_OF_ONE` bytes of a capture and `MAX_WAITING` of all may wait for the disk;
what would exceed that is left out, and counted. A capture has one job at the writer's thread at a time, so a
disk that does not answer piles up nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Final

from aero_l2.errors import CaptureUnavailable
from aero_l2.observe.capture.capture import PER_BATCH, PER_FRAME, Batch, Capture
from aero_l2.observe.capture.pruning import Pruning
from aero_l2.observe.capture.rules import CaptureRules
from aero_l2.observe.capture.thread import WriterThread
from aero_l2.observe.metrics import Metrics

MAX_WAITING_OF_ONE: Final = 4 * 1024 * 1024
MAX_WAITING: Final = 64 * 1024 * 1024
WRITE_AT: Final = 256 * 1024
"""What waits of one capture is written then, whenever the next flush is due."""
WRITE_ALL_AT: Final = MAX_WAITING // 4
MAX_CLOSING: Final = 4096
"""Captures whose tunnels are gone and that wait for the disk still; no more are begun then."""


Ended = Callable[["RunningCapture"], None]


class RunningCapture:
    """A capture as its tunnel has it.

    opened: whether its file is made is known. finished: all is in the file that ever will be. ended: told
    once, on the loop, when it ended for an error.
    """

    def __init__(self, captures: Captures, capture: Capture, ended: Ended) -> None:
        loop = asyncio.get_running_loop()
        self.capture = capture
        self.opened: asyncio.Future[None] = loop.create_future()
        self.finished: asyncio.Future[None] = loop.create_future()
        self.ended = ended
        self.is_dirty = False
        self.is_closed = False
        self._captures = captures
        self._metrics = captures.metrics
        self._handed_over = 0
        self._left_out = 0

    def take(self, frames: Sequence[bytes], size: int, *, inbound: bool) -> None:
        """Capture a batch of `size` bytes; never raises, never waits."""
        capture, captures = self.capture, self._captures
        if capture.is_over:
            return
        cost = size + PER_FRAME * len(frames) + PER_BATCH
        waiting = self._handed_over - capture.taken + cost
        if capture.is_full or waiting > MAX_WAITING_OF_ONE or captures.waiting + cost > MAX_WAITING:
            self._left_out += len(frames)
            cause = "size" if capture.is_full else "queue"
            self._metrics.capture_frames_dropped[cause].inc(len(frames))
            return
        self._handed_over += cost
        captures.handed_over += cost
        capture.hand_over(Batch(time.time_ns(), inbound, frames, cost))
        if not self.is_dirty:
            captures.is_dirty(self)
        if waiting >= WRITE_AT:
            captures.write(self)
        if captures.waiting >= WRITE_ALL_AT:
            captures.write_all()

    def close(self) -> None:
        """Take no more; what was taken gets into the file as soon as the disk takes it. Idempotent."""
        if not self.is_closed:
            self.is_closed = True
            self.capture.is_over = True
            self._captures.close(self, self._left_out)


class Captures:
    """Begins captures, and sees to it that they get into their files.

    handed_over: bytes of memory, so far.
    """

    def __init__(self, rules: CaptureRules, metrics: Metrics) -> None:
        self.rules = rules
        self.metrics = metrics
        self.handed_over = 0
        self._loop = asyncio.get_running_loop()
        self._dirty: list[RunningCapture] = []
        self._timer: asyncio.TimerHandle | None = None
        self._taken = 0
        self._running: set[RunningCapture] = set()
        self._closing = 0
        self._all_finished = asyncio.Event()
        self._all_finished.set()
        self._pruning = Pruning(rules.folder, rules.max_files)
        self._thread = WriterThread(self._pruning.work)

    @property
    def waiting(self) -> int:
        """Bytes of memory that wait for the disk."""
        return self.handed_over - self._taken

    def begin(self, session_id: int, ended: Ended) -> RunningCapture:
        """Capture from now on; the file is made a moment later. ended: see `RunningCapture`.

        Raises:
            CaptureUnavailable: too many wait for the disk already.
        """
        if self._closing >= MAX_CLOSING:
            self.metrics.capture_errors.inc()
            raise CaptureUnavailable(f"the disk of {self.rules.folder} does not answer")
        running = RunningCapture(self, Capture(self.rules, session_id, self.metrics), ended)
        self._running.add(running)
        self._all_finished.clear()
        self._thread.post(lambda: self._open(running))
        return running

    async def finish(self, timeout_s: float) -> int:
        """Close all captures and wait until they are in their files; how many are not in time. It is the last
        call."""
        for running in tuple(self._running):
            running.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._all_finished.wait()
        if self._timer is not None:
            self._timer.cancel()
        if not self._running:
            self._thread.end()
        return len(self._running)

    # -- for captures

    def is_dirty(self, running: RunningCapture) -> None:
        """It has something to be written, at the latest when the flush interval is over."""
        running.is_dirty = True
        self._dirty.append(running)
        if self._timer is None and self.rules.flush_interval_s:
            self._timer = self._loop.call_later(self.rules.flush_interval_s, self._flush)

    def write(self, running: RunningCapture) -> None:
        """Have what it has written, as soon as the disk takes it."""
        capture = running.capture
        if not (capture.is_posted or running.is_closed):
            capture.is_posted = True
            self._thread.post(lambda: self._write(running))

    def write_all(self) -> None:
        """The same, of all that have something."""
        dirty, self._dirty = self._dirty, []
        for running in dirty:
            running.is_dirty = False
            self.write(running)

    def close(self, running: RunningCapture, left_out: int) -> None:
        """Have it closed; it takes no more."""
        self._closing += 1
        self._thread.post(lambda: self._close(running, left_out))

    def _flush(self) -> None:
        self._timer = None
        self.write_all()

    # -- the writer's thread

    def _open(self, running: RunningCapture) -> None:
        name = running.capture.open()
        if name:
            self._pruning.opened(name)
        self._told(running, self._opened)

    def _write(self, running: RunningCapture) -> None:
        capture, before = running.capture, running.capture.taken
        had_ended = capture.error is not None
        capture.write()
        self._taken += capture.taken - before
        if capture.error is not None and not had_ended:
            self._told(running, self._failed)

    def _close(self, running: RunningCapture, left_out: int) -> None:
        capture, before = running.capture, running.capture.taken
        had_ended = capture.error is not None
        capture.close(left_out)
        self._taken += capture.taken - before
        if capture.path is not None:
            self._pruning.closed(capture.path.rpartition("/")[2])
        if capture.error is not None and not had_ended:
            self._told(running, self._failed)
        self._told(running, self._finished)

    def _told(self, running: RunningCapture, what: Callable[[RunningCapture], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(what, running)

    # -- what it tells, on the loop

    def _opened(self, running: RunningCapture) -> None:
        if running.capture.error is not None:
            self._failed(running)
        if not running.opened.done():
            running.opened.set_result(None)

    def _failed(self, running: RunningCapture) -> None:
        running.ended(running)
        running.close()

    def _finished(self, running: RunningCapture) -> None:
        self._closing -= 1
        self._running.discard(running)
        if not self._running:
            self._all_finished.set()
        if not running.finished.done():
            running.finished.set_result(None)
