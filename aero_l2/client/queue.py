"""A bounded queue of messages that can be closed: what the tunnel keeps in either direction. asyncio."""

from __future__ import annotations

import asyncio
from collections import deque


class Closable:
    """First in, first out, at most ``size`` messages; any number of readers and writers.

    Once closed, writers get the error at once and readers after they have taken what was left.
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

    @property
    def is_full(self) -> bool:
        """Whether there is no room."""
        return len(self._messages) >= self._size

    def close(self, error: Exception, *, drop: bool = False) -> None:
        """End it; only the first error counts. drop: forget what nobody has taken."""
        if self._error is None:
            self._error = error
        if drop:
            self._messages.clear()
        self._changed.set()
        self._room.set()

    def offer(self, message: bytes, *, beyond: int = 0) -> bool:
        """Add it if there is room; ``beyond``: so many messages of it more. Raises the error once closed."""
        if self._error is not None:
            self._raise(self._error)
        if len(self._messages) >= self._size + beyond:
            return False
        self.push(message)
        return True

    def push(self, message: bytes) -> None:
        """Add it, room or not, closed or not."""
        self._messages.append(message)
        self._changed.set()

    async def put(self, message: bytes) -> None:
        """Add it as soon as there is room. Raises the error once closed."""
        while not self.offer(message):
            self._room.clear()
            await self._room.wait()

    def take_now(self, most: int) -> list[bytes]:
        """What there is, ``most`` messages at most."""
        messages = self._messages
        if len(messages) <= most:
            taken = list(messages)
            messages.clear()
        else:
            taken = [messages.popleft() for _ in range(most)]
        self._room.set()
        return taken

    async def take(self, most: int | None = None) -> list[bytes]:
        """All there is, or ``most``, waiting for one message. Raises the error once closed and empty."""
        while not self._messages:
            if self._error is not None:
                self._raise(self._error)
            self._changed.clear()
            await self._changed.wait()
        return self.take_now(len(self._messages) if most is None else most)

    async def wait_empty(self) -> None:
        """Wait until everything is taken or dropped."""
        while self._messages:
            self._room.clear()
            await self._room.wait()

    @staticmethod
    def _raise(error: Exception) -> None:
        raise error.with_traceback(None)  # it is raised many times: each would lengthen its traceback
