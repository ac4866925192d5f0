"""Errors of aero_l2, named after what was wrong.

AeroError
├── ConfigError          the settings cannot be used; one fault a line
├── SegmentUnavailable   a tunnel's network cannot be made; the reason is for people
├── AtCapacity           a permit is not to be had: of the client address, the process or the session
├── IllegalTransition    a tunnel was asked to go where its life does not lead
└── MalformedMessage     a message is not of aero-l2-tunnel-v1 (aero_l2.wire.tunnel)
"""

from __future__ import annotations

import enum
from collections.abc import Sequence


class AeroError(Exception):
    """Base of every error that aero_l2 raises on purpose."""


class ConfigError(AeroError):
    """Settings with faults; `faults` holds one line for people each, all faults at once."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class SegmentUnavailable(AeroError):
    """The network of a tunnel cannot be made; `reason` is answered to the client with status 503."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Bound(enum.Enum):
    """What a number of tunnels is limited by, in the order in which the limits are judged."""

    CLIENT = "client address"
    PROCESS = "process"
    PRINCIPAL = "session"


class AtCapacity(AeroError):
    """A tunnel more than `bound` may hold was asked for."""

    def __init__(self, bound: Bound, limit: int) -> None:
        super().__init__(f"all {limit} tunnels of the {bound.value} are in use")
        self.bound = bound
        self.limit = limit


class IllegalTransition(AeroError):
    """A state of a tunnel was left for one that cannot follow it."""


class MalformedMessage(AeroError):
    """A message breaks the tunnel protocol; str() is the text that goes to the peer."""
