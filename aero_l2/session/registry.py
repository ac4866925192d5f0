"""Permits: how many tunnels the process, one client and one session may hold at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from aero_l2.errors import AtCapacity, Bound

PROCESS: Final = "the process"


@dataclass(frozen=True, slots=True)
class PermitLimits:
    """Tunnels at once: of the process, of one client, of one session principal; 0 is no limit.

    process_by: what sets the first.
    """

    process: int = 0
    client: int = 0
    principal: int = 0
    process_by: str = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who is to hold a permit. principal: the `sid` of cookie or JWT, None where credentials name nobody."""

    client: str = ""
    principal: str | None = field(default=None, repr=False)

    @property
    def owner(self) -> tuple[Bound, str]:
        """Whose a tunnel is: the session's, from wherever it comes; without one, the client address's."""
        if self.principal is not None:
            return Bound.PRINCIPAL, self.principal
        return Bound.CLIENT, self.client

    def of(self, bound: Bound) -> str | None:
        """What of it a limit on the number of tunnels looks at."""
        return {Bound.CLIENT: self.client, Bound.PROCESS: PROCESS, Bound.PRINCIPAL: self.principal}[bound]

    def may_replace(self, other: Holder, bound: Bound) -> bool:
        """Whether a kept tunnel of `other`'s gives way to one of ours where that limit is reached.

        Behind one address there may be several who have nothing to do with each other. So where nobody is
        named, only what is limited by address is made room for by address.
        """
        is_known = self.principal is not None or bound is Bound.CLIENT
        return is_known and self.owner == other.owner and self.of(bound) == other.of(bound)


_Key = tuple[Bound, Hashable]


class Permit:
    """One that is held; made by `Permits.take`.

    promised_to: whoever it is to be given up for; from then on it is not counted, as that one's is instead.
    """

    def __init__(self, permits: Permits, keys: list[_Key]) -> None:
        self._permits = permits
        self.keys = keys
        self.promised_to: object = None

    def promise(self, to: object) -> None:
        """It will be given up as soon as `to` needs it; not a second time."""
        assert self.promised_to is None
        self.promised_to = to
        self._permits.discount(self.keys)

    def keep(self) -> None:
        """It is promised to nobody, and counted if it is held still; that may be one too many now."""
        if self.promised_to is not None:
            self.promised_to = None
            self._permits.count(self.keys)

    def move(self, holder: Holder) -> None:
        """Hold it for another one from now on, and promised to nobody.

        Raises:
            AtCapacity: none is left for what is different; it stays as it was.
        """
        self._permits.check(holder, held=self.keys)
        self.keep()
        self._permits.discount(self.keys)
        self.keys = self._permits.keys(holder)
        self._permits.count(self.keys)

    def give_back(self) -> None:
        """It is held no longer."""
        if self.promised_to is None:
            self._permits.discount(self.keys)
        self.keys = []


class Permits:
    """Counts tunnels against three limits. A permit lives as long as its `with` block.

    `limits` may be replaced at any time; permits that are held stay valid.
    """

    def __init__(self, limits: PermitLimits) -> None:
        self.limits = limits
        self._taken: Counter[_Key] = Counter()

    @property
    def taken(self) -> int:
        """Permits that are held, without those that are promised to others that hold one."""
        return self._taken[Bound.PROCESS, PROCESS]

    @property
    def tracked(self) -> int:
        """Clients, sessions and processes that hold any; what memory depends on."""
        return len(self._taken)

    def check(self, holder: Holder, more: int = 1, held: Iterable[_Key] = ()) -> None:
        """Raise what `take` would raise now. more: permits; 0 = whether fewer should be held than are.

        held: what is counted already for whom this is asked.
        """
        for bound, who, limit in self._counts(holder):
            if 0 < limit < self._taken[bound, who] + more and (bound, who) not in held:
                raise AtCapacity(bound, limit, self.limits.process_by if bound is Bound.PROCESS else "")

    @contextmanager
    def take(self, holder: Holder) -> Iterator[Permit]:
        """Hold one permit.

        Raises:
            AtCapacity: none is left; of several limits that are reached the first in the order of `Bound`.
        """
        self.check(holder)
        permit = Permit(self, self.keys(holder))
        self.count(permit.keys)
        try:
            yield permit
        finally:
            permit.give_back()

    def keys(self, holder: Holder) -> list[_Key]:
        """For a `Permit`: all that this holder's counts for."""
        return [(bound, who) for bound, who, _ in self._counts(holder)]

    def count(self, keys: Iterable[_Key]) -> None:
        """For a `Permit`: one more."""
        self._taken.update(keys)

    def discount(self, keys: Iterable[_Key]) -> None:
        """For a `Permit`: one less."""
        for key in keys:
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]

    def _counts(self, holder: Holder) -> Iterator[tuple[Bound, Hashable, int]]:
        yield Bound.CLIENT, holder.client, self.limits.client
        yield Bound.PROCESS, PROCESS, self.limits.process
        if holder.principal is not None:
            yield Bound.PRINCIPAL, holder.principal, self.limits.principal
