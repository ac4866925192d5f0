"""Looks at every NAT process from time to time and says which is sick; the decisions are `netns.health`'s."""

import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from netns import vitals
from netns.children import Child
from netns.health import LOOK_S, Pulse, Signs
from netns.segments import Segment

_LOOKS_PER_TURN: Final = 64


@dataclass(slots=True)
class _Patient:
    identifier: int
    segment: Segment
    child: Child
    due: float
    pulse: Pulse = field(default_factory=Pulse)
    asked: bool = False


class HealthWatch:
    """Calls ``sick`` with a tunnel's id, its NAT process and what is wrong, once for each process."""

    def __init__(self, sick: Callable[[int, Child, str], None]) -> None:
        self._sick = sick
        self._patients: deque[_Patient] = deque()

    def add(self, identifier: int, segment: Segment, now: float) -> None:
        """Look after the NAT process of ``segment``, if it still runs, until it or the segment ends."""
        if segment.nat is not None:
            self._patients.append(_Patient(identifier, segment, segment.nat, now + LOOK_S))

    def next_timeout(self, now: float) -> float | None:
        """Seconds until the next look, None without anyone to look at."""
        return max(0.0, self._patients[0].due - now) if self._patients else None

    def look(self, now: float) -> None:
        """Look at those whose turn it is, a bounded number."""
        for _ in range(_LOOKS_PER_TURN):
            if not self._patients or self._patients[0].due > now:
                return
            patient = self._patients.popleft()
            if patient.child.pidfd < 0 or patient.segment.interior.netns < 0:
                continue
            wrong = _examine(patient, now)
            if wrong is not None:
                self._sick(patient.identifier, patient.child, wrong)
                continue
            patient.due = now + LOOK_S
            self._patients.append(patient)


def _examine(patient: _Patient, now: float) -> str | None:
    """One look; nothing is wrong with what cannot be looked at."""
    try:
        state, sleeps = vitals.state_and_sleeps(patient.child.pid)
    except OSError:
        return None  # it has just ended, or proc(5) is mounted with hidepid
    if not patient.pulse.needs_more(now, sleeps):
        signs = Signs(state, sleeps)
    else:
        signs = _look_closer(patient, state, sleeps)
    wrong = patient.pulse.look(now, signs)
    if patient.asked and not patient.pulse.doubted:
        patient.asked = False
        with contextlib.suppress(OSError), patient.segment.borrowed_route() as route:
            vitals.forget(route)
    return wrong


def _look_closer(patient: _Patient, state: str, sleeps: int) -> Signs:
    """Everything there is to see, and a question behind it, so that what comes next is an answer."""
    cpu_s, packets = 0.0, None
    with contextlib.suppress(OSError):
        cpu_s = vitals.cpu_s(patient.child.pid)
        with patient.segment.borrowed_route() as route:
            packets = vitals.ask(route)
            patient.asked = True
    return Signs(state, sleeps, cpu_s, packets)
