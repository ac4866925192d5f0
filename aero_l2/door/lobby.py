"""Connections that stand at a listener, bounded, and waiting for the last of them to go."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Generic, TypeVar

from aero_l2.door.answering import Answering
from aero_l2.quota.waiting import Waiting
from aero_l2.web.forwarded import client_group

C = TypeVar("C", bound=Answering)


class Lobby(Generic[C]):
    """At most `limit` connections; `Waiting` says which one is dropped if that is one too many."""

    def __init__(self, limit: int) -> None:
        self._waiting: Waiting[C] = Waiting(limit)
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def __iter__(self) -> Iterator[C]:
        return iter(tuple(self._waiting))

    def enter(self, connection: C) -> None:
        """It waits from now on, if it does not yet."""
        self._is_empty.clear()
        evicted = self._waiting.add(connection, client_group(connection.address))
        if evicted is not None:
            evicted.drop()

    def leave(self, connection: C) -> None:
        """It waits no longer, without being gone."""
        self._waiting.discard(connection)

    def gone(self, connection: C) -> None:
        """It waits no longer, and nothing of it is left here."""
        self._waiting.discard(connection)
        if not self._waiting:
            self._is_empty.set()

    async def emptied(self) -> None:
        """Return once nobody waits."""
        await self._is_empty.wait()
