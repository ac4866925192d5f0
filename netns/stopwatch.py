"""How long each step of making a namespace took."""

import time

STEPS = ("queue", "namespace", "taps", "rules", "sockets", "nat_start")
"""Waiting for a thread; the namespace; both TAPs; nft and the interfaces, side by side; sockets inside; the
NAT process."""


class Stopwatch:
    """Runs from when it is made; the steps come one after the other, on whatever thread."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._took: list[int] = []

    def step(self) -> None:
        """A step has ended, and the next one begins."""
        now = time.monotonic()
        self._took.append(round((now - self._at) * 1e6))
        self._at = now

    def resume(self) -> None:
        """What came since the last step belongs to none."""
        self._at = time.monotonic()

    @property
    def took(self) -> tuple[int, ...]:
        """Microseconds of each step of `STEPS` so far."""
        return tuple(self._took)
