"""The life of a tunnel: its phase, why it ends, and every deadline it has. Pure.

    accepted → preparing → open ⇄ kept → closing(reason) → closed

accepted: the upgrade passed its checks. preparing: the segment is being made. open: 101 sent, frames flow.
kept: the WebSocket broke, and the client may come back for the rest (docs/adr/0020).
closing: our close frame or the peer's is under way. closed: everything is released. Every phase may end so.

Times in seconds: `now` of one monotonic clock, `wall` since 1970. Whoever holds a `Lifecycle` keeps one timer
for `next_deadline` and then asks `look` until nothing is due (docs/adr/0017).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from aero_l2.errors import IllegalTransition
from aero_l2.session.closing import Reason
from aero_l2.session.pings import PingClock

EXPIRY_LOOK_S: Final = 30.0
"""The clock that a credential expires by may be set meanwhile, so it is looked at no less often."""
LATE_S: Final = 0.5
"""A deadline that is looked at so late was missed because this process stood still. What the client sent
meanwhile gets as long to be read before silence is held against it."""


class Phase(enum.Enum):
    """Where in its life a tunnel is."""

    ACCEPTED = "accepted"
    PREPARING = "preparing"
    OPEN = "open"
    KEPT = "kept"
    CLOSING = "closing"
    CLOSED = "closed"


_NEXT: Final[dict[Phase, frozenset[Phase]]] = {
    Phase.ACCEPTED: frozenset((Phase.PREPARING, Phase.CLOSED)),
    Phase.PREPARING: frozenset((Phase.OPEN, Phase.CLOSED)),
    Phase.OPEN: frozenset((Phase.KEPT, Phase.CLOSING, Phase.CLOSED)),
    Phase.KEPT: frozenset((Phase.OPEN, Phase.CLOSING, Phase.CLOSED)),
    Phase.CLOSING: frozenset((Phase.CLOSED,)),
    Phase.CLOSED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Times:
    """How long a tunnel may wait for what, in seconds; 0 = for ever.

    idle_s: for a message of the client. session_s: for its end. ping_interval_s: until it sends a PING of
    its own, 0 = it sends none. nat_wait_s: for the NAT process. close_wait_s: for the peer's close frame,
    0 = not at all. keep_s: for a client whose WebSocket broke, 0 = not at all.
    """

    idle_s: float = 0.0
    session_s: float = 0.0
    ping_interval_s: float = 0.0
    nat_wait_s: float = 30.0
    close_wait_s: float = 1.0
    keep_s: float = 0.0


@dataclass(frozen=True, slots=True)
class End:
    """Begin the end, for this reason. why: for the log, where the reason does not say it all."""

    reason: Reason
    why: str = ""


@dataclass(frozen=True, slots=True)
class SendPing:
    """Send a PING with this payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Drop:
    """Wait for the peer no more: drop the connection."""


Due = End | SendPing | Drop


class _Wait(enum.Enum):
    """What a deadline is for, in the order in which several are judged that are over together."""

    EXPIRY = enum.auto()
    SESSION = enum.auto()
    NAT = enum.auto()
    RETURN = enum.auto()
    IDLE = enum.auto()
    PING = enum.auto()
    CLOSE = enum.auto()


class Lifecycle:
    """One tunnel's. From `closing` on `reason` says why it ends and `text` what the peer was told."""

    def __init__(self, times: Times, expires_at: float | None = None) -> None:
        self._times = times
        self._expires_at = expires_at
        self._deadlines: dict[_Wait, float] = {}
        self._heard_at = 0.0
        self._is_excused = False
        self._pings: PingClock | None = None
        self._pinged = False
        self.opened_at = 0.0
        self.kept_at = 0.0
        self.phase = Phase.ACCEPTED
        self.reason: Reason | None = None
        self.text = ""

    @property
    def is_open(self) -> bool:
        """Whether frames flow."""
        return self.phase is Phase.OPEN

    @property
    def is_live(self) -> bool:
        """Whether it is open or kept: it can be ended, and has not been."""
        return self.phase is Phase.OPEN or self.phase is Phase.KEPT

    @property
    def next_deadline(self) -> float | None:
        """When to `look`; None while there is nothing to wait for. It may be earlier than anything is due."""
        return min(self._deadlines.values(), default=None)

    # -- what happens

    def preparing(self) -> None:
        """The segment is being made."""
        self._to(Phase.PREPARING)

    def opened(self, now: float, *, nat_ready: bool, pinged: bool = True) -> None:
        """The 101 was sent. pinged: whether the tunnel's protocol has PINGs."""
        self._to(Phase.OPEN)
        self.opened_at = now
        self._pinged = pinged
        times = self._times
        self._wait_for(_Wait.SESSION, times.session_s, now)
        if not nat_ready:
            self._wait_for(_Wait.NAT, times.nat_wait_s, now)
        self._attended(now)

    def kept(self, now: float) -> None:
        """The WebSocket broke: there is nobody to be silent or to be pinged. Length and expiry go on."""
        self._to(Phase.KEPT)
        self.kept_at = now
        self._pings = None
        for wait in (_Wait.IDLE, _Wait.PING):
            self._deadlines.pop(wait, None)
        self._deadlines[_Wait.RETURN] = now + self._times.keep_s

    def resumed(self, now: float, expires_at: float | None) -> float:
        """The client is back, with a credential that may be another one: silence and PINGs begin anew.

        Returns the seconds it was away.
        """
        self._to(Phase.OPEN)
        self._expires_at = expires_at
        for wait in (_Wait.RETURN, _Wait.EXPIRY):
            self._deadlines.pop(wait, None)
        self._attended(now)
        return now - self.kept_at

    def _attended(self, now: float) -> None:
        """A client is at the other end from now on."""
        times = self._times
        self._heard_at = now
        self._is_excused = False
        self._wait_for(_Wait.IDLE, times.idle_s, now)
        if self._expires_at is not None:
            self._deadlines[_Wait.EXPIRY] = now
        if self._pinged and times.ping_interval_s > 0:
            self._pings = PingClock(times.ping_interval_s, now)
            self._deadlines[_Wait.PING] = self._pings.due_at

    def heard(self, now: float) -> None:
        """A message of the client came. Changes no deadline: `look` does, so this costs next to nothing."""
        self._heard_at = now

    def nat_ready(self) -> None:
        """The NAT process is there."""
        self._deadlines.pop(_Wait.NAT, None)

    def answered(self, payload: bytes, now: float) -> float | None:
        """A PONG came: the seconds it took, None if it answers no PING that is awaited."""
        if self._pings is None or not self.is_open:
            return None
        took = self._pings.answered(payload, now)
        self._deadlines[_Wait.PING] = self._pings.due_at
        return took

    def closing(self, reason: Reason, text: str, now: float) -> None:
        """The end has begun; the first reason stands."""
        self._to(Phase.CLOSING)
        self.reason, self.text = reason, text
        self._deadlines = {_Wait.CLOSE: now + self._times.close_wait_s}

    def closed(self, reason: Reason) -> Reason:
        """Everything is released, for `reason` unless there was one before; returns the one that stands."""
        self._to(Phase.CLOSED)
        self._deadlines = {}
        if self.reason is None:
            self.reason = reason
        return self.reason

    # -- what is due

    def look(self, now: float, wall: float) -> Due | None:
        """What is to be done at `now`, one thing at a time; None when that was all."""
        for wait in _Wait:
            deadline = self._deadlines.get(wait)
            if deadline is not None and deadline <= now:
                due = self._over(wait, now, wall)
                if due is not None:
                    return due
        return None

    def _over(self, wait: _Wait, now: float, wall: float) -> Due | None:
        """A deadline has passed: it is gone or moved afterwards, so that nothing is due twice."""
        match wait:
            case _Wait.EXPIRY:
                return self._look_at_expiry(now, wall)
            case _Wait.IDLE:
                return self._look_at_silence(now)
            case _Wait.PING:
                assert self._pings is not None
                payload = self._pings.send(now)
                self._deadlines[_Wait.PING] = self._pings.due_at
                return SendPing(payload)
            case _Wait.SESSION:
                del self._deadlines[wait]
                return End(Reason.SESSION_TOO_LONG)
            case _Wait.RETURN:
                del self._deadlines[wait]
                return End(Reason.NOT_RESUMED)
            case _Wait.NAT:
                del self._deadlines[wait]
                return End(Reason.TUNNEL_FAILED, "the NAT process (slirp4netns) did not become ready")
            case _Wait.CLOSE:
                del self._deadlines[wait]
                return Drop()

    def _look_at_expiry(self, now: float, wall: float) -> Due | None:
        assert self._expires_at is not None
        left = self._expires_at - wall
        if left <= 0:
            del self._deadlines[_Wait.EXPIRY]
            return End(Reason.SESSION_EXPIRED)
        self._deadlines[_Wait.EXPIRY] = now + min(left, EXPIRY_LOOK_S)
        return None

    def _look_at_silence(self, now: float) -> Due | None:
        over_at = self._heard_at + self._times.idle_s
        if over_at > now:
            self._is_excused = False
            self._deadlines[_Wait.IDLE] = over_at
            return None
        if now - over_at > LATE_S and not self._is_excused:
            self._is_excused = True
            self._deadlines[_Wait.IDLE] = now + LATE_S
            return None
        del self._deadlines[_Wait.IDLE]
        return End(Reason.IDLE_TIMEOUT)

    def _wait_for(self, wait: _Wait, seconds: float, now: float) -> None:
        if seconds > 0:
            self._deadlines[wait] = now + seconds

    def _to(self, phase: Phase) -> None:
        if phase not in _NEXT[self.phase]:
            raise IllegalTransition(f"a tunnel that is {self.phase.value} cannot become {phase.value}")
        self.phase = phase
