"""The life of a tunnel as a pure state machine.

    accepted → preparing → open → closing(reason) → closed

accepted: the upgrade passed its checks. preparing: the segment is being made. open: 101 sent, frames flow.
closing: our close frame or the peer's is under way. closed: everything is released. Every state may end so.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from aero_l2.errors import IllegalTransition
from aero_l2.session.closing import Reason


class Phase(enum.Enum):
    """Where in its life a tunnel is."""

    ACCEPTED = "accepted"
    PREPARING = "preparing"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


_NEXT: Final[dict[Phase, frozenset[Phase]]] = {
    Phase.ACCEPTED: frozenset((Phase.PREPARING, Phase.CLOSED)),
    Phase.PREPARING: frozenset((Phase.OPEN, Phase.CLOSED)),
    Phase.OPEN: frozenset((Phase.CLOSING, Phase.CLOSED)),
    Phase.CLOSING: frozenset((Phase.CLOSED,)),
    Phase.CLOSED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class TunnelState:
    """A phase, and from `closing` on why; `text` is what the peer was told."""

    phase: Phase = Phase.ACCEPTED
    reason: Reason | None = None
    text: str = ""

    @property
    def is_open(self) -> bool:
        """Whether frames flow."""
        return self.phase is Phase.OPEN

    def preparing(self) -> TunnelState:
        """The segment is being made."""
        return self._to(Phase.PREPARING)

    def opened(self) -> TunnelState:
        """The 101 was sent."""
        return self._to(Phase.OPEN)

    def closing(self, reason: Reason, text: str = "") -> TunnelState:
        """The end has begun; the first reason stands."""
        return self._to(Phase.CLOSING, reason, text)

    def closed(self) -> TunnelState:
        """Everything is released; keeps the reason if there was one."""
        return self._to(Phase.CLOSED, self.reason, self.text)

    def _to(self, phase: Phase, reason: Reason | None = None, text: str = "") -> TunnelState:
        if phase not in _NEXT[self.phase]:
            raise IllegalTransition(f"a tunnel that is {self.phase.value} cannot become {phase.value}")
        return TunnelState(phase, reason, text)
