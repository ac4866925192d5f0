"""The capture of one tunnel: begun with it or by an operator, fed by its pump, over when it is."""

from __future__ import annotations

import asyncio
from typing import Final

from aero_l2.errors import CaptureUnavailable
from aero_l2.observe.capture.capture import Capture
from aero_l2.observe.capture.captures import Captures, RunningCapture
from aero_l2.session.pump import Pump
from aero_l2.session.record import Record

PATIENCE_S: Final = 5.0
"""So long an operator's command waits for the disk."""


class TunnelCapture:
    """At most one capture at a time, in a file of its own each. captures: None where no directory is set."""

    def __init__(self, captures: Captures | None, pump: Pump, record: Record) -> None:
        self._captures = captures
        self._pump = pump
        self._record = record
        self._running: RunningCapture | None = None
        self._is_open = False

    @property
    def running(self) -> Capture | None:
        """The capture that runs: its `path`, None until the file is made, `size` and `frames` in it."""
        return None if self._running is None else self._running.capture

    def tunnel_opened(self) -> None:
        """Frames are about to flow: capture them from the first on, if every tunnel's are captured."""
        self._is_open = True
        if self._captures is not None and self._captures.rules.every_tunnel:
            try:
                self._begin(self._captures)
            except CaptureUnavailable as error:
                self._record.capture_failed(error.reason, None)

    def tunnel_closed(self) -> None:
        """No more frames; idempotent."""
        self._is_open = False
        self._end()

    async def start(self) -> str:
        """Begin a capture now; the path of its file, which is made by then.

        Raises:
            CaptureUnavailable: one runs, no directory is set, the tunnel is over, or the disk refuses.
        """
        if self._captures is None:
            raise CaptureUnavailable("there is nowhere to put it: set AERO_L2_CAPTURE_DIR")
        if not self._is_open:
            raise CaptureUnavailable("the tunnel is not open")
        if self._running is not None:
            capture = self._running.capture
            full = ", which is at AERO_L2_CAPTURE_MAX_BYTES: stop it first" if capture.is_full else ""
            raise CaptureUnavailable(f"it is being captured already, to {capture.path}{full}")
        running = self._begin(self._captures)
        await _patiently(running.opened)
        capture = running.capture
        if capture.error is not None or capture.path is None:
            if self._running is running:
                self._end()
            why = capture.why or "the disk does not answer"
            raise CaptureUnavailable(f"cannot write to {self._captures.rules.folder}: {why}")
        return capture.path

    async def stop(self) -> str:
        """End the capture; the path of its file, which is complete by then.

        Raises:
            CaptureUnavailable: none runs, or the disk did not take all of it.
        """
        running = self._running
        if running is None:
            raise CaptureUnavailable("it is not being captured")
        self._end()
        await _patiently(running.finished)
        capture = running.capture
        if capture.error is not None:
            raise CaptureUnavailable(f"{capture.path} is not complete: {capture.why}")
        if not running.finished.done() or capture.path is None:
            raise CaptureUnavailable("it is not in its file yet: the disk does not answer")
        return capture.path

    def _begin(self, captures: Captures) -> RunningCapture:
        running = captures.begin(self._record.session_id, self._failed)
        self._running = running
        self._pump.watch = running.take
        return running

    def _end(self) -> None:
        running, self._running = self._running, None
        self._pump.watch = None
        if running is not None:
            running.close()

    def _failed(self, running: RunningCapture) -> None:
        self._record.capture_failed(running.capture.why, running.capture.path)
        if running is self._running:
            self._end()


async def _patiently(waited_for: asyncio.Future[None]) -> None:
    """Until it is done, within reason."""
    await asyncio.wait([waited_for], timeout=PATIENCE_S)
