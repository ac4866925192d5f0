"""What a session needs from outside: its network segment. The wiring provides it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from aero_l2.session.counting import SegmentCounts


class Segment(Protocol):
    """The network of one tunnel, ready for frames."""

    @property
    def tap(self) -> int:
        """Non-blocking file descriptor of the guest's TAP; one frame a read or write, no packet header.

        It stays open until the segment's context manager has exited.
        """

    @property
    def failed(self) -> asyncio.Future[str]:
        """Resolves with the reason, for people, when NAT process or namespace is lost."""

    @property
    def nat_ready(self) -> asyncio.Future[None]:
        """Done once packets reach the NAT process; what would go there before is lost."""

    def counts(self) -> SegmentCounts:
        """What it has counted, the kernel's part of it as it was read last (`counting.INTERVAL_S`)."""

    async def refresh(self) -> None:
        """Read the kernel's part now, if that takes no longer than `counting.LAST_READING_S`."""


SegmentOpener = Callable[[int], AbstractAsyncContextManager[Segment]]
"""Session id → context manager that makes a segment and undoes it, on cancellation too.

Entering raises `aero_l2.errors.SegmentUnavailable` when it cannot be made.
"""
