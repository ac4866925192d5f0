"""Many of a kind as one line: what exceeds a rate is counted, by key, and nothing is left out. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Final, Generic, NamedTuple, TypeVar

from aero_l2.quota.bucket import TokenBucket

MAX_KEYS: Final = 64


class Rate(NamedTuple):
    """So many lines at once, and per second in the long run."""

    burst: int
    per_second: float


Key = TypeVar("Key", bound=Hashable)


class Tally(Generic[Key]):
    """Sums by key of what got no line of its own.

    Args:
        rate: of lines.
        other: the key that stands for all beyond `MAX_KEYS` of what it is given.
    """

    def __init__(self, rate: Rate, other: Callable[[Key], Key], now: float) -> None:
        self._bucket = TokenBucket(rate.per_second, rate.burst, now)
        self._other = other
        self._sums: dict[Key, list[int]] = {}

    def admits(self, now: float) -> bool:
        """Whether there may be a line now; it is counted as written."""
        return self._bucket.take(1, now) == 1

    def add(self, key: Key, *numbers: int) -> None:
        """Count something; always as many numbers."""
        if key not in self._sums and len(self._sums) >= MAX_KEYS:
            key = self._other(key)
        sums = self._sums.setdefault(key, [0] * (1 + len(numbers)))
        for index, number in enumerate((1, *numbers)):
            sums[index] += number

    def taken(self) -> Iterator[tuple[Key, list[int]]]:
        """What was counted since the last time: how many, then the sums of their numbers."""
        sums, self._sums = self._sums, {}
        yield from sums.items()
