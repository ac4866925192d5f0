"""What /metrics has moved by since a moment, compared exactly."""

from __future__ import annotations

import re

from support.proxy import Proxy
from support.wait import DeadlineError, until

SOON_S = 30.0
"""A number of the kernel's may be two seconds old, four after a tunnel opened; the machine may be busy."""
_COUNTER = re.compile(r"\w+(_total|_count)({.*})?")
_TIME = ("aero_l2_netd_", "aero_l2_process_", "aero_l2_loop_lag_")
"""What moves by itself: questions to the network helper, processor time, samples."""
_TRAFFIC = ("l2_frames_rx", "l2_frames_tx", "l2_bytes_")


class Counting:
    """Counters since this was made. ignoring: beginnings of names that nobody asks about, unless wanted."""

    def __init__(self, proxy: Proxy, *ignoring: str) -> None:
        self._proxy = proxy
        self._ignored = (*_TIME, *_TRAFFIC, *ignoring)
        self._before = proxy.metrics()

    def moved(self) -> dict[str, float]:
        """Every counter that moved, and by how much."""
        now = self._proxy.metrics()
        assert set(now) == set(self._before), "the series are always the same"
        return {
            name: value - self._before[name]
            for name, value in now.items()
            if _COUNTER.fullmatch(name) and value != self._before[name]
        }

    async def exactly(self, wanted: dict[str, float]) -> None:
        """These counters move by so much, soon, and no other but what is ignored."""

        def seen() -> dict[str, float]:
            moved = self.moved().items()
            return {name: by for name, by in moved if name in wanted or not name.startswith(self._ignored)}

        try:
            await until(lambda: seen() == wanted, "the numbers", SOON_S)
        except DeadlineError as late:
            raise AssertionError(f"moved: {seen()}, wanted: {wanted}") from late
