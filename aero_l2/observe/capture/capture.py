"""One capture: the event loop hands frames over, the writer's thread puts them into the file.

What the loop has handed over lies in `_batches`, a deque, which both may use at a time. The other attributes
are the thread's, but for `is_over` and `is_posted`: both set these.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from aero_l2.observe.capture.file import CaptureFile
from aero_l2.observe.capture.rules import CaptureRules
from aero_l2.observe.metrics import Metrics

WRITE_BYTES: Final = 64 * 1024
"""Encoded at a time, and written: in between the event loop gets its turn."""
PER_FRAME: Final = 64
"""Bytes of memory that a frame takes besides its own, about."""
PER_BATCH: Final = 256


class Batch(NamedTuple):
    """Frames of one moment and one direction; cost: bytes of memory they take."""

    nanoseconds: int
    inbound: bool
    frames: Sequence[bytes]
    cost: int


class Capture:
    """What the writer's thread knows of a capture, and who is running it may look at.

    path: of its file, None until that is made. error: why it ended before its time. is_over: nothing is taken
    any more. taken: bytes of memory that were handed over and are free again.
    """

    def __init__(self, rules: CaptureRules, session_id: int, metrics: Metrics) -> None:
        self.session_id = session_id
        self.began_ms = time.time_ns() // 1_000_000
        self.error: OSError | None = None
        self.is_over = False
        self.is_posted = False
        self.taken = 0
        self._rules = rules
        self._metrics = metrics
        self._batches: deque[Batch] = deque()
        self._file: CaptureFile | None = None
        self._left_out = 0
        self._counted = (0, 0)

    @property
    def path(self) -> str | None:
        """Where it goes."""
        return None if self._file is None else self._file.path

    @property
    def why(self) -> str:
        """Why it ended before its time, in words; empty if it did not."""
        return "" if self.error is None else self.error.strerror or str(self.error)

    @property
    def size(self) -> int:
        """Bytes in the file so far."""
        return 0 if self._file is None else self._file.size

    @property
    def frames(self) -> int:
        """Frames in the file so far."""
        return 0 if self._file is None else self._file.frames

    @property
    def is_full(self) -> bool:
        """No frame goes into it any more."""
        return self._file is not None and self._file.is_full

    # -- the loop

    def hand_over(self, batch: Batch) -> None:
        """Frames to be written."""
        self._batches.append(batch)

    # -- the writer's thread

    def open(self) -> str | None:
        """Make the file; its name, None where that failed."""
        self._try(self._open)
        return None if self._file is None else self._file.name

    def write(self) -> None:
        """Put into the file what was handed over."""
        self.is_posted = False
        if self._file is not None and self.error is None:
            self._try(self._drain)
        if self.error is not None:
            self._leave_out()

    def close(self, left_out: int) -> None:
        """Put into the file what was handed over last, and close it. left_out: frames that never were."""
        self.write()
        self._left_out += left_out
        if self.error is None:
            self._try(self._finish)

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except OSError as error:
            self.error = error
            self.is_over = True
            self._metrics.capture_errors.inc()
            if self._file is not None:
                self._file.discard()
        finally:
            self._count()

    def _open(self) -> None:
        self._file = CaptureFile(self._rules, self.began_ms, self.session_id)

    def _drain(self) -> None:
        file = self._opened()
        while self._batches:
            pieces, size, frames, cost = list[bytes](), 0, 0, 0
            handed_over = 0
            while self._batches and size < WRITE_BYTES:
                batch = self._batches.popleft()
                more = file.encoded(batch.nanoseconds, batch.frames, inbound=batch.inbound, ahead=size)
                pieces += more.pieces
                size += more.size
                frames += more.frames
                handed_over += len(batch.frames)
                cost += batch.cost
            before, cause = file.frames, "error"
            try:
                if size:
                    file.append(b"".join(pieces), frames)
                cause = "size"
            finally:
                self.taken += cost
                self._miss(handed_over - (file.frames - before), cause)

    def _finish(self) -> None:
        self._opened().finish(self._left_out)

    def _leave_out(self) -> None:
        """What was handed over to a capture that has ended."""
        while self._batches:
            batch = self._batches.popleft()
            self.taken += batch.cost
            self._miss(len(batch.frames), "error")

    def _miss(self, frames: int, cause: str) -> None:
        if frames:
            self._left_out += frames
            self._metrics.capture_frames_dropped[cause].inc(frames)

    def _count(self) -> None:
        """Bring the metrics up to what is in the file."""
        size, frames = self.size, self.frames
        self._metrics.capture_bytes.inc(size - self._counted[0])
        self._metrics.capture_frames.inc(frames - self._counted[1])
        self._counted = size, frames

    def _opened(self) -> CaptureFile:
        assert self._file is not None
        return self._file
