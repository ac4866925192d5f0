"""How much goes through each tunnel now: two looks at their counters, and what came between. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

LOOK_EVERY_S: Final = 2.0
NAMES: Final = ("frames_rx", "bytes_rx", "frames_tx", "bytes_tx")
Counted = tuple[int, int, int, int]
"""Of one tunnel, in the order of `NAMES`."""


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    counted: Mapping[int, Counted]


class Rates:
    """Of all tunnels, by their ids; times in monotonic seconds.

    The mean is over the time since the look before the last: between one and two of `LOOK_EVERY_S`.
    """

    def __init__(self) -> None:
        self._looks = (_Look(0.0, {}), _Look(0.0, {}))

    def look(self, now: float, counted: Mapping[int, Counted]) -> None:
        """What all tunnels have counted until now."""
        self._looks = (self._looks[1], _Look(now, counted))

    def of(
        self, session_id: int, now: float, age_s: float | None, counted: Counted
    ) -> dict[str, float | None]:
        """The rates of a tunnel that has counted so much by now: `…_per_s` for each of `NAMES`.

        None for one that is not open, or younger than a look where there is no earlier one to go by.
        """
        window_s, before = self._before(session_id, now, age_s)
        rates: dict[str, float | None] = {"rate_window_s": None if window_s is None else round(window_s, 3)}
        for name, then, value in zip(NAMES, before, counted, strict=True):
            rates[f"{name}_per_s"] = None if window_s is None else round((value - then) / window_s, 1)
        return rates

    def _before(self, session_id: int, now: float, age_s: float | None) -> tuple[float | None, Counted]:
        nothing = (0, 0, 0, 0)
        for look in self._looks:
            if session_id in look.counted and now > look.at:
                return now - look.at, look.counted[session_id]
        if age_s is None or age_s <= 0:
            return None, nothing
        return age_s, nothing
