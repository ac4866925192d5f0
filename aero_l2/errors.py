"""Errors of aero_l2, named after what was wrong.

AeroError
├── ConfigError          the settings cannot be used; one fault a line
├── SegmentUnavailable   a tunnel's network cannot be made; the reason is for people
├── Overloaded           no tunnel can be set up right now; the reason is for people
├── CaptureUnavailable   frames cannot be captured; the reason is for people
├── AtCapacity           a permit is not to be had: of the client address, the process or the session
│   └── HourUsedUp       the session has used its bytes of the hour
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


class Overloaded(AeroError):
    """There is too much to do for one tunnel more; `reason` is answered to the client with status 503.

    kind: what there is too much of, as the metrics name it.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class CaptureUnavailable(AeroError):
    """A capture cannot be begun, or not be ended in order; `reason` is for people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Bound(enum.Enum):
    """What a number of tunnels is limited by, in the order in which the limits are judged."""

    CLIENT = "client address"
    PROCESS = "process"
    PRINCIPAL = "session"


class AtCapacity(AeroError):
    """A tunnel more than `bound` may hold was asked for. by: what sets the limit, where that varies."""

    def __init__(self, bound: Bound, limit: int, by: str = "") -> None:
        super().__init__(f"all {limit} tunnels of the {bound.value} are in use")
        self.bound = bound
        self.limit = limit
        self.by = by


class HourUsedUp(AtCapacity):
    """A session has used what it may in an hour; some of it is free again in `wait_s` seconds."""

    def __init__(self, limit: int, wait_s: float) -> None:
        super().__init__(Bound.PRINCIPAL, limit)
        self.wait_s = wait_s


class IllegalTransition(AeroError):
    """A state of a tunnel was left for one that cannot follow it."""


class MalformedMessage(AeroError):
    """A message breaks the tunnel protocol; str() is the text that goes to the peer."""
