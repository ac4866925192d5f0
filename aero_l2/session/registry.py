"""Permits of the process: how many tunnels there may be at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aero_l2.errors import AtCapacity


class Permits:
    """Counts tunnels against a limit; 0 is no limit. A permit lives as long as its `with` block."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0

    @property
    def exhausted(self) -> bool:
        """Whether `take` would raise."""
        return 0 < self.limit <= self.taken

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold one permit.

        Raises:
            AtCapacity: none is left.
        """
        if self.exhausted:
            raise AtCapacity(self.limit)
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
