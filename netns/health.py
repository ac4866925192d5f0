"""Whether a NAT process is still well: pure decisions on what the kernel says about it (docs/adr/0021).

A healthy one goes to sleep by itself at least once a second, in poll(2), or moves packets. One that does
neither is asked a question on its TAP; any packet that it takes or gives afterwards clears it.
"""

from dataclasses import dataclass
from typing import Final

LOOK_S: Final = 1.5
"""Seconds between two looks at one process; longer than its longest sleep."""
DOUBTS: Final = 3
"""Doubted at so many looks in a row, it is judged: two questions had no answer then."""
GAP_S: Final = 3 * LOOK_S
"""A look that comes so late says that we were stopped ourselves; what was doubted then proves nothing."""
CHANCE_S: Final = 0.2
"""CPU time in which a healthy process would have answered many times."""


@dataclass(frozen=True, slots=True)
class Signs:
    """What one look at a process shows.

    state: the letter of proc(5): R runs or wants to, S sleeps, D waits for a device, T and t are stopped.
    sleeps: how often it has gone to sleep by itself so far.
    cpu_s: CPU time it has used.
    packets: what it has taken from its TAP and given to it so far, None where that cannot be told.
    """

    state: str
    sleeps: int
    cpu_s: float = 0.0
    packets: int | None = None


class Pulse:
    """What was seen of one NAT process. All times are seconds of one monotonic clock.

    `sleeps` is cheap to read: `needs_more` says whether the rest is worth its cost.
    """

    def __init__(self) -> None:
        self._seen: Signs | None = None
        self._seen_at = 0.0
        self._doubted: Signs | None = None
        self._doubts = 0

    @property
    def doubted(self) -> bool:
        """Whether the last look raised or kept a doubt."""
        return self._doubted is not None

    def needs_more(self, now: float, sleeps: int) -> bool:
        """Whether `sleeps` leaves it open if the process is well."""
        return self._seen is not None and now - self._seen_at < GAP_S and sleeps == self._seen.sleeps

    def look(self, now: float, signs: Signs) -> str | None:
        """Take in one look; what is wrong with the process, in words for people, once that is certain."""
        in_doubt = self.needs_more(now, signs.sleeps)
        self._seen, self._seen_at = signs, now
        if not in_doubt:
            self._doubted = None
            return None
        if self._doubted is None or _told_more(self._doubted, signs):
            self._doubted, self._doubts = signs, 0
        self._doubts += 1
        return _judge(self._doubted, signs) if self._doubts >= DOUBTS else None


def _told_more(before: Signs, now: Signs) -> bool:
    """Whether packets have moved since ``before``, or can be counted now for the first time."""
    return now.packets is not None and now.packets != before.packets


def _judge(before: Signs, now: Signs) -> str | None:
    """A process that did nothing since ``before``, when it was asked; None where it had no chance to."""
    if now.state in ("T", "t"):
        return "it is stopped"
    if before.packets is None or now.packets is None:
        return None  # it could not be asked
    if now.state == "R":
        return "it spins" if now.cpu_s - before.cpu_s >= CHANCE_S else None
    return "it sleeps and does not answer" if now.state == "S" else None
