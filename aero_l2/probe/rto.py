"""When TCP sends again (RFC 6298). Pure."""

from __future__ import annotations

from typing import Final

INITIAL_RTO_S: Final = 1.0
MIN_RTO_S: Final = 0.25
"""RFC 6298 §2.4 would have a second; a probe of ten seconds cannot wait for that."""
MAX_RTO_S: Final = 60.0
_GRANULARITY_S: Final = 0.01


class RetransmissionTimer:
    """One timer for the oldest segment under way, and the round trip that sets it.

    One segment at a time is timed, and none that was sent twice (Karn's algorithm).
    """

    def __init__(self) -> None:
        self.deadline: float | None = None
        self.retries = 0
        self._rto_s = INITIAL_RTO_S
        self._smoothed_s: float | None = None
        self._variance_s = 0.0
        self._sample: tuple[int, float] | None = None

    def is_due(self, now: float) -> bool:
        """Whether it is time to send again."""
        return self.deadline is not None and now >= self.deadline

    def sent(self, end: int, now: float) -> None:
        """Something new is under way, up to sequence number ``end``."""
        if self.deadline is None:
            self.deadline = now + self._rto_s
        if self._sample is None:
            self._sample = (end, now)

    def wait_for_window(self, now: float) -> None:
        """Nothing may be sent: ask for a window after a while."""
        if self.deadline is None:
            self.deadline = now + self._rto_s

    def acknowledged(self, to: int, now: float, *, outstanding: bool) -> None:
        """Everything before ``to`` has arrived; ``outstanding``: there is more under way."""
        self.retries = 0
        if self._sample is not None and to >= self._sample[0]:
            self._measured(max(now - self._sample[1], 0.0))
            self._sample = None
        self.deadline = now + self._rto_s if outstanding else None

    def backed_off(self, now: float) -> None:
        """It was due, and is sent again: twice as long until the next time."""
        self.retries += 1
        self.forget_sample()
        self._rto_s = min(self._rto_s * 2, MAX_RTO_S)
        self.deadline = now + self._rto_s

    def forget_sample(self) -> None:
        """What is timed is sent again: its answer says nothing of the round trip."""
        self._sample = None

    def stop(self) -> None:
        """Nothing is under way any more."""
        self.deadline = None

    def _measured(self, round_trip_s: float) -> None:
        if self._smoothed_s is None:
            self._smoothed_s, self._variance_s = round_trip_s, round_trip_s / 2
        else:
            self._variance_s += (abs(self._smoothed_s - round_trip_s) - self._variance_s) / 4
            self._smoothed_s += (round_trip_s - self._smoothed_s) / 8
        wanted = self._smoothed_s + max(_GRANULARITY_S, 4 * self._variance_s)
        self._rto_s = min(max(wanted, MIN_RTO_S), MAX_RTO_S)
