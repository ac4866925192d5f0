"""Permits: how many tunnels the process, one client and one session may hold at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from aero_l2.errors import AtCapacity, Bound

PROCESS: Final = "the process"


@dataclass(frozen=True, slots=True)
class PermitLimits:
    """Tunnels at once: of the process, of one client, of one session principal; 0 is no limit."""

    process: int = 0
    client: int = 0
    principal: int = 0


@dataclass(frozen=True, slots=True)
class Holder:
    """Who is to hold a permit. principal: the `sid` of cookie or JWT, None where credentials name nobody."""

    client: str = ""
    principal: str | None = field(default=None, repr=False)


class Permits:
    """Counts tunnels against three limits. A permit lives as long as its `with` block.

    `limits` may be replaced at any time; permits that are held stay valid.
    """

    def __init__(self, limits: PermitLimits) -> None:
        self.limits = limits
        self._taken: Counter[tuple[Bound, Hashable]] = Counter()

    @property
    def taken(self) -> int:
        """Permits that are held."""
        return self._taken[Bound.PROCESS, PROCESS]

    @property
    def tracked(self) -> int:
        """Clients, sessions and processes that hold any; what memory depends on."""
        return len(self._taken)

    def check(self, holder: Holder) -> None:
        """Raise what `take` would raise now."""
        for bound, who, limit in self._counts(holder):
            if 0 < limit <= self._taken[bound, who]:
                raise AtCapacity(bound, limit)

    @contextmanager
    def take(self, holder: Holder) -> Iterator[None]:
        """Hold one permit.

        Raises:
            AtCapacity: none is left; of several limits that are reached the first in the order of `Bound`.
        """
        self.check(holder)
        keys = [(bound, who) for bound, who, _ in self._counts(holder)]
        self._taken.update(keys)
        try:
            yield
        finally:
            for key in keys:
                self._taken[key] -= 1
                if not self._taken[key]:
                    del self._taken[key]

    def _counts(self, holder: Holder) -> Iterator[tuple[Bound, Hashable, int]]:
        yield Bound.CLIENT, holder.client, self.limits.client
        yield Bound.PROCESS, PROCESS, self.limits.process
        if holder.principal is not None:
            yield Bound.PRINCIPAL, holder.principal, self.limits.principal
