"""Whose turn it is where only so many may be at it at once. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """How many may be at it, and how many may wait for that; 0 is no limit."""

    at_once: int = 0
    waiting: int = 0


class Turns(Generic[T]):
    """Things of clients that take turns: in order for each client, and one of each client in a round.

    So clients with one each are served in order of arrival, and one with many waits for itself mostly. One
    too many costs the client with the most of them its newest: the thing that came if that is the same
    client, or has as many. `limits` may be replaced at any time.
    """

    def __init__(self, limits: TurnLimits) -> None:
        self.limits = limits
        self._client_of: dict[T, str] = {}
        self._queues: OrderedDict[str, dict[T, None]] = OrderedDict()
        self._at_it: set[T] = set()

    @property
    def at_it(self) -> int:
        """How many have their turn."""
        return len(self._at_it)

    @property
    def waiting(self) -> int:
        """How many wait for theirs."""
        return len(self._client_of)

    def is_full(self, client: str) -> bool:
        """Whether something more of `client` would be one too many, and the one that goes."""
        if self._has_room():
            return False
        return self._count(client) + 1 >= max(map(len, self._queues.values()), default=0)

    def join(self, thing: T, client: str) -> T | None:
        """Let it wait; returns what goes for it, already removed: `thing` itself where `is_full`."""
        goes: T | None = None
        if not self._has_room():
            loudest = max(self._queues, key=self._count, default=client)
            if self._count(client) + 1 >= self._count(loudest):
                return thing
            goes = next(reversed(self._queues[loudest]))
            self.leave(goes)
        self._queues.setdefault(client, {})[thing] = None
        self._client_of[thing] = client
        return goes

    def next(self) -> T | None:
        """What has its turn now; None while as many as may are at it, or nothing waits."""
        if not self._queues or 0 < self.limits.at_once <= len(self._at_it):
            return None
        client, queue = next(iter(self._queues.items()))
        thing = next(iter(queue))
        self.leave(thing)
        if client in self._queues:
            self._queues.move_to_end(client)
        self._at_it.add(thing)
        return thing

    def leave(self, thing: T) -> None:
        """It is done, or waits no longer; nothing happens where it is neither at it nor waiting."""
        self._at_it.discard(thing)
        client = self._client_of.pop(thing, None)
        if client is None:
            return
        queue = self._queues[client]
        del queue[thing]
        if not queue:
            del self._queues[client]

    def _has_room(self) -> bool:
        """Whether one more may come: to wait, or because it would be its turn at once."""
        at_once, waiting = self.limits.at_once, self.limits.waiting
        is_turn_free = not self._client_of and not 0 < at_once <= len(self._at_it)
        return is_turn_free or not 0 < waiting <= len(self._client_of)

    def _count(self, client: str) -> int:
        return len(self._queues.get(client, ()))
