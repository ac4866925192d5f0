"""A bounded queue of messages that can be closed: what the tunnel keeps in either direction. asyncio."""

from __future__ import annotations

import asyncio
from collections import deque


class Closable:
    """First in, first out, at most ``size`` messages; one reader, any number of writers.

    Once closed, writers get the error at once and the reader after it has taken what was left.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._messages: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._error: Exception | None = None

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def error(self) -> Exception | None:
        """What it was closed with."""
        return self._error

    def close(self, error: Exception, *, drop: bool = False) -> None:
        """End it; only the first error counts. drop: forget what nobody has taken."""
        if self._error is None:
            self._error = error
        if drop:
            self._messages.clear()
        self._changed.set()
        self._room.set()

    def offer(self, message: bytes) -> bool:
        """Add it if there is room. Raises the error once closed."""
        if self._error is not None:
            raise self._error
        if len(self._messages) >= self._size:
            return False
        self._messages.append(message)
        self._changed.set()
        return True

    async def put(self, message: bytes) -> None:
        """Add it as soon as there is room. Raises the error once closed."""
        while not self.offer(message):
            self._room.clear()
            await self._room.wait()

    async def take(self) -> list[bytes]:
        """All there is, one message at least. Raises the error once closed and empty."""
        while not self._messages:
            if self._error is not None:
                raise self._error
            self._changed.clear()
            await self._changed.wait()
        taken = list(self._messages)
        self._messages.clear()
        self._room.set()
        return taken
