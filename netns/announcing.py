"""Announces tunnels to their NAT processes, and sees that these have read it; see docs/adr/0012."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from netns import vitals
from netns.jobs import Jobs
from netns.lines import log
from netns.segments import Segment

WITHIN_S: Final = 5.0
"""How long a NAT process may take to read it; a guest's packets wait no longer. A machine with many tunnels a
core takes up to a second; one that takes this long is about to be found sick (`netns.health`)."""
_LOOK_S: Final = 0.001
_AGAIN_S: Final = 0.01
_LOOKS_PER_TURN: Final = 64


@dataclass(slots=True)
class _Announced:
    identifier: int
    segment: Segment
    until: float
    again: float
    pause: float = _AGAIN_S


class Announcer:
    """Calls ``ready`` with a tunnel's id once its NAT process has read the packet, or could not be told.

    The kernel counts what was read from a TAP and tells nobody, so it is looked at each millisecond while
    there is anything to wait for. The packet is sent again after 10, 20, 40 ms and so on: until the kernel
    has noticed that tap1 has a reader (linkwatch, a work queue that all namespaces share), it drops what is
    sent there, and what the guest sent would be lost as well. What of these is dropped counts for nobody.
    """

    def __init__(self, jobs: Jobs, ready: Callable[[int], None]) -> None:
        self._jobs = jobs
        self._ready = ready
        self._waiting: deque[_Announced] = deque()
        self._due = 0.0

    def announce(self, identifier: int, segment: Segment) -> None:
        """Send the packet. Nothing is said of a segment that is released meanwhile."""
        segment.early_losses = None
        self._send(segment, lambda error: self._sent(identifier, segment, error))

    def _send(self, segment: Segment, then: Callable[[BaseException | None], None]) -> None:
        try:
            segment.announce_nat(self._jobs, then)
        except OSError as error:  # out of file descriptors: no reason for netd to end
            then(error)

    def _sent(self, identifier: int, segment: Segment, error: BaseException | None) -> None:
        if error is not None:
            self._give_up(identifier, segment, str(error))
            return
        self._due = now = time.monotonic()
        self._waiting.append(_Announced(identifier, segment, now + WITHIN_S, now + _AGAIN_S))

    def next_timeout(self, now: float) -> float | None:
        """Seconds until the next look, None without anyone to wait for."""
        return max(0.0, self._due - now) if self._waiting else None

    def look(self, now: float) -> None:
        """Look at a bounded number of them."""
        if not self._waiting or now < self._due:
            return
        self._due = now + _LOOK_S
        for _ in range(min(len(self._waiting), _LOOKS_PER_TURN)):
            announced = self._waiting.popleft()
            if announced.segment.interior.netns < 0:
                continue
            if _has_read(announced.segment):
                self._ready(announced.identifier)
            elif now >= announced.until:
                self._give_up(announced.identifier, announced.segment, "its NAT process reads nothing yet")
            else:
                self._waiting.append(announced)
                self._repeat(announced, now)

    def _repeat(self, announced: _Announced, now: float) -> None:
        """Send it again if it is time to; that it cannot be sent is told once the time is over."""
        if now >= announced.again:
            announced.pause *= 2
            announced.again = now + announced.pause
            self._send(announced.segment, lambda _: None)

    def _give_up(self, identifier: int, segment: Segment, why: str) -> None:
        segment.early_losses = segment.early_losses or 0
        log("warning", "NAT not announced", session=identifier, text=why)
        self._ready(identifier)


def _has_read(segment: Segment) -> bool:
    try:
        with segment.borrowed_route() as route:
            taken, lost = vitals.taken_and_lost(route)
    except OSError:  # out of file descriptors: the time runs
        return False
    if taken:
        segment.early_losses = lost
    return taken > 0
