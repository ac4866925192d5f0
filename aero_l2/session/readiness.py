"""Whether the host can make tunnels now: what /readyz answers.

A tunnel that could not be made makes the process unready; from then on a tunnel is made and unmade for
trial every second until one succeeds, since a load balancer sends nobody meanwhile who would show it. One is
tried, too, once a client has waited for its tunnel and left: it may be patient enough to see a failure.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
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


async def _all_is_well() -> str:
    return ""


class Readiness:
    """Wraps an opener and remembers whether the last segment could be made; unready until a first one was.

    verdict: looked at before each trial; why the process should be unready even if tunnels can be made, empty
    where nothing speaks against it. Must not raise. fix: what to type for a reason, for the log.
    """

    def __init__(
        self,
        opener: SegmentOpener,
        verdict: Callable[[], Awaitable[str]] = _all_is_well,
        fix: Callable[[str], str] = lambda reason: "",
    ) -> None:
        self._opener = opener
        self._log = LimitedLog(_log)
        self._look = verdict
        self._fix = fix
        self._verdict = ""
        self._trials: asyncio.Task[None] | None = None
        self._became_ready = asyncio.Event()
        self.reason = "starting"
        """Why the process is not ready, for people; empty while it is."""

    def unready_reason(self) -> str | None:
        """The verdict, or why the last segment asked for could not be made; None if all is well."""
        return self._verdict or self.reason or None

    def open(self, session_id: int) -> AbstractAsyncContextManager[Segment]:
        """A `SegmentOpener` that notes how it went."""
        return self._open(session_id)

    def lost(self, reason: str) -> None:
        """Somebody knows that no tunnel can be made; a trial that succeeds says otherwise."""
        if self.reason != reason:
            fix = self._fix(reason)
            more = {"fix": fix} if fix else {}
            self._log.write("error", "tunnels cannot be made", reason, kind="reason", **more)
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
        if not self._verdict:
            self._became_ready.set()

    def _try_again(self) -> None:
        if self._trials is None or self._trials.done():
            self._trials = spawn(self._try_until_ready(), name="readiness")

    async def _try_until_ready(self) -> None:
        concerns()  # whoever has shown that a trial is due, it is not about that tunnel
        is_over = False
        while not is_over:
            self._verdict = await self._look()
            try:
                async with self._open(TRIAL_SESSION):
                    pass
            except SegmentUnavailable:
                pass
            is_over = self.unready_reason() is None
            if not is_over:
                await asyncio.sleep(TRIAL_INTERVAL_S)
