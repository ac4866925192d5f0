"""All tunnels of the process: making them under permits, and closing them together."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Final

import structlog

from aero_l2.observe.metrics import Metrics
from aero_l2.session.closing import Reason
from aero_l2.session.ports import SegmentOpener
from aero_l2.session.registry import Holder, PermitLimits, Permits
from aero_l2.session.tunnel import Tunnel, TunnelOptions
from aero_l2.wire.framing import Framing

RELEASE_TIMEOUT_S: Final = 2.0

_log = structlog.get_logger("aero_l2.session")


class Tunnels:
    """Makes tunnels and knows the live ones.

    Args:
        opener: makes a tunnel's segment.
        limits: how many tunnels there may be at once; `permits.limits` changes them later.
        options: shared by all tunnels.
    """

    def __init__(
        self, opener: SegmentOpener, *, limits: PermitLimits, options: TunnelOptions, metrics: Metrics
    ) -> None:
        self._opener = opener
        self._options = options
        self._metrics = metrics
        self._ids = itertools.count(1)
        self._live: set[Tunnel] = set()
        self._tasks: set[asyncio.Task[object]] = set()
        self.permits = Permits(limits)

    @property
    def active(self) -> int:
        """Tunnels that are held, those being made or unmade included."""
        return self.permits.taken

    @property
    def live(self) -> list[Tunnel]:
        """Tunnels whose segment stands, oldest first."""
        return sorted(self._live, key=lambda tunnel: tunnel.session_id)

    def prepare(
        self, peer: str, holder: Holder, framing: Framing, expires_at: float | None = None
    ) -> AbstractAsyncContextManager[Tunnel]:
        """Take a permit and make a segment; both are given back when the block ends, however it ends.

        framing: how the client sends and gets frames. expires_at: unix seconds at which the tunnel is closed,
        None = never.

        Raises, on entering:
            AtCapacity: no permit is left.
            SegmentUnavailable: the segment cannot be made.
        """
        return self._prepare(peer, holder, framing, expires_at)

    def close_all(self, reason: Reason) -> None:
        """Begin the end of every tunnel that is open."""
        for tunnel in tuple(self._live):
            tunnel.close(reason)

    async def wait_ended(self, timeout_s: float) -> bool:
        """Wait until every tunnel is released; False if some are not in time."""
        tasks = self._tasks - {asyncio.current_task()}
        if not tasks:
            return True
        _, left = await asyncio.wait(tasks, timeout=timeout_s)
        return not left

    async def cancel_all(self) -> None:
        """Cancel the tasks that hold tunnels and wait for what they release, within reason."""
        for task in tuple(self._tasks):
            task.cancel()
        if not await self.wait_ended(RELEASE_TIMEOUT_S):
            _log.error("tunnels are not released", left=len(self._tasks), waited_s=RELEASE_TIMEOUT_S)

    @asynccontextmanager
    async def _prepare(
        self, peer: str, holder: Holder, framing: Framing, expires_at: float | None
    ) -> AsyncIterator[Tunnel]:
        with self.permits.take(holder), self._tracked():
            session_id = next(self._ids)
            async with self._opener(session_id) as segment:
                tunnel = Tunnel(
                    session_id,
                    peer,
                    segment,
                    self._options,
                    self._metrics,
                    holder=holder,
                    framing=framing,
                    expires_at=expires_at,
                )
                self._live.add(tunnel)
                try:
                    yield tunnel
                finally:
                    self._live.discard(tunnel)

    @contextmanager
    def _tracked(self) -> Iterator[None]:
        """Know the current task as one that holds a tunnel."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)
