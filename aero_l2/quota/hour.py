"""How many bytes a session principal has used in the last hour, over all its tunnels. Pure.

Bytes are kept by the minute, so those of a minute count for 60 to 61 minutes: never does a principal use more
than its limit in any hour. Times in monotonic seconds.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from typing import Final

MAX_PRINCIPALS: Final = 16_384
"""Principals without a tunnel that are remembered, about 1 KB each; one more forgets the one that was heard
of longest ago."""
HOUR_S: Final = 3600
_MINUTE_S: Final = 60
_MINUTES: Final = HOUR_S // _MINUTE_S + 1
"""Those that may count at one time: the one that runs, and sixty before it."""


class Account:
    """What one principal has used. `holders`: its tunnels, for which it is remembered."""

    __slots__ = ("_minute", "_quotas", "_used", "holders", "total")

    def __init__(self, quotas: HourQuotas, now: float) -> None:
        self._quotas = quotas
        self._used = array("Q", bytes(8 * _MINUTES))
        self._minute = int(now // _MINUTE_S)
        self.total = 0
        self.holders = 0

    @property
    def limit(self) -> int:
        """Bytes in an hour."""
        return self._quotas.limit

    def spend(self, size: int, now: float) -> bool:
        """Count `size` bytes; False, and nothing is counted, if they are more than is left."""
        self.advance(now)
        limit = self._quotas.limit
        if 0 < limit < self.total + size:
            return False
        self._count(size)
        return True

    def exhaust(self, now: float) -> None:
        """Count what is left as used: who was told to stop does not come in again for a smaller message."""
        self.advance(now)
        self._count(max(0, self._quotas.limit - self.total))

    def _count(self, size: int) -> None:
        self._used[self._minute % _MINUTES] += size
        self.total += size

    def advance(self, now: float) -> None:
        """Forget what is over an hour ago."""
        minute = int(now // _MINUTE_S)
        for passed in range(self._minute + 1, min(minute, self._minute + _MINUTES) + 1):
            self.total -= self._used[passed % _MINUTES]
            self._used[passed % _MINUTES] = 0
        self._minute = max(minute, self._minute)

    def wait_s(self, now: float) -> float:
        """Seconds until anything may be used; 0 if something may now."""
        self.advance(now)
        left, limit = self.total, self._quotas.limit
        if not 0 < limit <= left:
            return 0.0
        first = self._minute - _MINUTES + 1
        for minute in range(first, self._minute + 1):
            left -= self._used[minute % _MINUTES]
            if left < limit:
                return (minute + _MINUTES) * _MINUTE_S - now
        raise AssertionError("all of what is used is forgotten some time")


class HourQuotas:
    """The accounts of all principals. `limit`: bytes in an hour, 0 = none; it may be replaced at any time."""

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self._accounts: OrderedDict[str, Account] = OrderedDict()

    def __len__(self) -> int:
        return len(self._accounts)

    def wait_s(self, principal: str, now: float) -> float:
        """Seconds until this principal may use anything; 0 if it may now."""
        account = self._accounts.get(principal)
        return 0.0 if account is None else account.wait_s(now)

    def hold(self, principal: str, now: float) -> Account:
        """The account of a principal that has a tunnel from now on, until `release`."""
        account = self._accounts.get(principal)
        if account is None:
            account = self._accounts[principal] = Account(self, now)
        account.holders += 1
        self._accounts.move_to_end(principal)
        return account

    def exhaust(self, principal: str, now: float) -> None:
        """Count what is left to a principal that has a tunnel as used."""
        self._accounts[principal].exhaust(now)

    def release(self, principal: str, now: float) -> None:
        """A tunnel of it is gone; with nothing used there is nothing to remember."""
        account = self._accounts[principal]
        account.holders -= 1
        account.advance(now)
        if not (account.holders or account.total):
            del self._accounts[principal]
            return
        self._accounts.move_to_end(principal)
        self._forget(now)

    def _forget(self, now: float) -> None:
        """Forget the oldest without a tunnel: those that are over an hour old, and those that are too many.

        Few are looked at at a time; one that has a tunnel goes to the end.
        """
        for _ in range(4):
            principal, account = next(iter(self._accounts.items()))
            account.advance(now)
            if account.holders:
                self._accounts.move_to_end(principal)
            elif account.total == 0 or len(self._accounts) > MAX_PRINCIPALS:
                del self._accounts[principal]
            else:
                return
            if not self._accounts:
                return
