"""Who stands at the door, and who goes when there are too many. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Waiting(Generic[T]):
    """Connections by client, at most `limit`; one too many costs the client with the most of them its oldest.

    A client that opens connections as fast as it can thus evicts its own. Among clients with equally many it
    is the turn of the one that has had so many for the longest. Every call takes constant time.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._client_of: dict[T, str] = {}
        self._of_client: dict[str, dict[T, None]] = {}
        self._by_count: defaultdict[int, dict[str, None]] = defaultdict(dict)
        self._most = 0

    def __len__(self) -> int:
        return len(self._client_of)

    def __contains__(self, connection: T) -> bool:
        return connection in self._client_of

    def __iter__(self) -> Iterator[T]:
        return iter(self._client_of)

    def add(self, connection: T, client: str) -> T | None:
        """Let it wait, unless it does already; returns the connection that goes for it, already removed."""
        if connection in self._client_of:
            return None
        theirs = self._of_client.setdefault(client, {})
        self._recount(client, len(theirs), len(theirs) + 1)
        theirs[connection] = None
        self._client_of[connection] = client
        if len(self._client_of) <= self._limit:
            return None
        loudest = next(iter(self._by_count[self._most]))
        oldest = next(iter(self._of_client[loudest]))
        self.discard(oldest)
        return oldest

    def discard(self, connection: T) -> None:
        """It waits no longer, if it did."""
        client = self._client_of.pop(connection, None)
        if client is None:
            return
        theirs = self._of_client[client]
        del theirs[connection]
        self._recount(client, len(theirs) + 1, len(theirs))
        if not theirs:
            del self._of_client[client]

    def _recount(self, client: str, before: int, now: int) -> None:
        if before:
            clients = self._by_count[before]
            del clients[client]
            if not clients:
                del self._by_count[before]
        if now:
            self._by_count[now][client] = None
        if now > self._most or self._most not in self._by_count:
            self._most = now
