"""Whether the host can make tunnels now: what /readyz answers.

A tunnel that could not be made makes the process unready; from then on a tunnel is made and unmade for
trial every second until one succeeds, since a load balancer sends nobody meanwhile who would show it. One is
tried, too, once a client has waited for its tunnel and left: it may be patient enough to see a failure.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final

import structlog

from aero_l2.errors import SegmentUnavailable
from aero_l2.observe.limit import LimitedLog
from aero_l2.session.ports import Segment, SegmentOpener
from aero_l2.tasks import concerns, spawn

TRIAL_INTERVAL_S: Final = 1.0
DOUBT_S: Final = 1.0
"""Most tunnels are made in a fiftieth of it."""
TRIAL_SESSION: Final = 0
"""Session id of a trial."""

_log = structlog.get_logger(component="readiness")


class Readiness:
    """Wraps an opener and remembers whether the last segment could be made; unready until a first one was."""

    def __init__(self, opener: SegmentOpener) -> None:
        self._opener = opener
        self._log = LimitedLog(_log)
        self._trials: asyncio.Task[None] | None = None
        self._became_ready = asyncio.Event()
        self.reason = "starting"
        """Why the process is not ready, for people; empty while it is."""

    def unready_reason(self) -> str | None:
        """Why the last segment asked for could not be made; None if it could."""
        return self.reason or None

    def open(self, session_id: int) -> AbstractAsyncContextManager[Segment]:
        """A `SegmentOpener` that notes how it went."""
        return self._open(session_id)

    def lost(self, reason: str) -> None:
        """Somebody knows that no tunnel can be made; a trial that succeeds says otherwise."""
        if self.reason != reason:
            self._log.write("error", "tunnels cannot be made", reason, kind="reason")
        self.reason = reason
        self._try_again()

    async def wait(self) -> None:
        """Return once the process is ready; trials are made meanwhile."""
        self._try_again()
        await self._became_ready.wait()

    async def close(self) -> None:
        """End the trials."""
        if self._trials is not None:
            self._trials.cancel()
            await asyncio.wait([self._trials])
        self._log.close()

    @asynccontextmanager
    async def _open(self, session_id: int) -> AsyncIterator[Segment]:
        begun = time.monotonic()
        async with AsyncExitStack() as stack:
            try:
                segment = await stack.enter_async_context(self._opener(session_id))
            except SegmentUnavailable as error:
                self.lost(error.reason)
                raise
            except asyncio.CancelledError:
                if session_id != TRIAL_SESSION and time.monotonic() - begun >= DOUBT_S:
                    self._try_again()
                raise
            self._found()
            yield segment

    def _found(self) -> None:
        if self.reason:
            self._log.write("info", "tunnels can be made")
        self.reason = ""
        self._became_ready.set()

    def _try_again(self) -> None:
        if self._trials is None or self._trials.done():
            self._trials = spawn(self._try_until_ready(), name="readiness")

    async def _try_until_ready(self) -> None:
        concerns()  # whoever has shown that a trial is due, it is not about that tunnel
        is_over = False
        while not is_over:
            try:
                async with self._open(TRIAL_SESSION):
                    pass
            except SegmentUnavailable:
                await asyncio.sleep(TRIAL_INTERVAL_S)
            is_over = not self.reason
