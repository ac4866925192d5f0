"""What messages cost of a tunnel's allowance: which of a batch are still within it. Pure.

The rules (docs/protocol.md): every message of the client counts, text and pings of RFC 6455 too; so does what
it is sent, PONGs and the server's PINGs too; ERROR and close cost nothing. The message that exceeds a limit
is not delivered, those before it are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from aero_l2.quota.traffic import Allowance, Exceeded
from aero_l2.session.closing import QUOTA_REASONS, Reason
from aero_l2.session.lifecycle import Lifecycle
from aero_l2.wire.framing import Framing
from aero_l2.wire.receive import Aside
from aero_l2.wire.tunnel import HEADER_BYTES, Inbound


class Spending:
    """Of one tunnel; times in monotonic seconds.

    exceeded: the limit that was too low for something; the tunnel is to end then.
    """

    def __init__(self, allowance: Allowance, framing: Framing) -> None:
        self._allowance = allowance
        self._framing = framing
        self._overhead = framing.overhead
        self.is_limited = allowance.is_limited
        self.exceeded: Exceeded | None = None

    def spend(self, size: int, now: float) -> bool:
        """Whether a message of `size` bytes may be sent."""
        return self._spend(size, now, 0)

    def standing(self, reason: Reason) -> dict[str, int]:
        """What a quota counted, and allows, where a tunnel ends for it: fields of the log."""
        for what, ends_with in QUOTA_REASONS.items():
            if ends_with is reason:
                used, limit = self._allowance.standing(what)
                return {"used": used, "limit": limit}
        return {}

    def used(self) -> dict[str, int | None]:
        """Bytes that the limits counted, and the limits; None for a limit that there is not."""
        used, limit = self._allowance.standing(Exceeded.BYTES)
        hour, hourly = self._allowance.hour or (None, None)
        return {
            "quota_bytes_used": used if limit else None,
            "quota_bytes_limit": limit or None,
            "quota_hour_bytes_used": hour,
            "quota_hour_bytes_limit": hourly,
        }

    def judge(
        self, life: Lifecycle, messages: Sequence[bytes], asides: Sequence[Aside], inbound: Inbound
    ) -> Inbound:
        """Note that the client spoke, and leave out what is beyond its quotas; see `receive`."""
        now = time.monotonic()
        if messages or any(aside.kind in ("text", "ping") for aside in asides):
            life.heard(now)
        return self.receive(messages, asides, inbound, now) if self.is_limited else inbound

    def admit_now(self, frames: Sequence[bytes]) -> int:
        """`admit`, by the clock."""
        return self.admit(frames, time.monotonic())

    def admit(self, frames: Sequence[bytes], now: float) -> int:
        """How many of these frames may be sent."""
        overhead = self._overhead
        if self._fits(sum(map(len, frames)) + overhead * len(frames), now, 0):
            return len(frames)
        for number, frame in enumerate(frames):
            if not self._spend(len(frame) + overhead, now, 0):
                return number
        return len(frames)

    def receive(
        self, messages: Sequence[bytes], asides: Sequence[Aside], inbound: Inbound, now: float
    ) -> Inbound:
        """What of one read may be acted on; `inbound` is all of its `messages`, sorted."""
        size = sum(map(len, messages)) + sum(map(len, inbound.pings)) + HEADER_BYTES * len(inbound.pings)
        if asides:
            size += sum(aside.size + aside.reply_size for aside in asides)
        if self._fits(size, now, len(messages) + len(asides)):
            return inbound
        taken = 0
        for size, reply, is_message in self._one_by_one(messages, asides):
            if not (self._spend(size, now, 1) and self._spend(reply, now, 0)):
                break
            taken += is_message
        return self._framing.sort(messages[:taken])

    def _one_by_one(
        self, messages: Sequence[bytes], asides: Sequence[Aside]
    ) -> Iterator[tuple[int, int, bool]]:
        """Of each message in order its size, that of the reply it gets, and whether it is one of `messages`.

        Nothing behind a malformed one is looked at.
        """
        waiting = list(asides)
        for number, message in enumerate(messages):
            while waiting and waiting[0].before <= number:
                aside = waiting.pop(0)
                yield aside.size, aside.reply_size, False
            alone = self._framing.sort([message])
            yield len(message), sum(len(ping) + HEADER_BYTES for ping in alone.pings), True
            if alone.fault is not None:
                return
        for aside in waiting:
            yield aside.size, aside.reply_size, False

    def _fits(self, size: int, now: float, messages: int) -> bool:
        return self._allowance.spend(size, now, messages) is None

    def _spend(self, size: int, now: float, messages: int) -> bool:
        exceeded = self._allowance.spend(size, now, messages)
        if exceeded is not None:
            self.exceeded = exceeded
        return exceeded is None
