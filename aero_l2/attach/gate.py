"""A gate in front of a bounded queue: it holds its user up for a moment, then drops. asyncio.

A sender that is held up keeps its frames and slows down, which loses nothing; but a network card that is
held up for long looks broken to its driver. So: at most `PATIENCE_S`, and once that has passed nobody waits
until there is room again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

PATIENCE_S: Final = 0.5


class Gate:
    """Lets frames of one direction through."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._waits = True

    async def admit(
        self, frame: bytes, offer: Callable[[bytes], bool], put: Callable[[bytes], Awaitable[None]]
    ) -> bool:
        """Whether the frame is in the queue: ``offer`` adds it if there is room, ``put`` waits for room.

        What these raise passes through.
        """
        if offer(frame):
            self._waits = True
            return True
        if not self._waits:
            return False
        try:
            async with asyncio.timeout(self._patience_s):
                await put(frame)
        except TimeoutError:
            self._waits = False
            return False
        return True
