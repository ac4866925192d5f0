"""Lines that clients provoke: the first pass, the others are counted."""

from __future__ import annotations

import asyncio

import structlog
from structlog.typing import EventDict

from aero_l2.observe.limit import OTHER_TEXTS, Kind, LimitedLog, LineLimit

REFUSED = Kind("info", "upgrade refused", "max connections exceeded")


def test_first_lines_of_a_window_pass_and_the_rest_are_counted() -> None:
    limit = LineLimit(burst=10, window_s=60)
    assert [limit.admit(REFUSED, 100 + n / 100) for n in range(1000)] == [True] * 10 + [False] * 990
    assert limit.ended(159.9) == []
    assert limit.ended(160) == [(REFUSED, 990)]
    assert limit.ended(1000) == []


def test_new_window_lets_lines_pass_again() -> None:
    limit = LineLimit(burst=1, window_s=60)
    for start in (0.0, 60.0, 120.0):
        limit.ended(start)
        assert limit.admit(REFUSED, start)
        assert not limit.admit(REFUSED, start + 1)


def test_few_lines_leave_nothing_out() -> None:
    limit = LineLimit(burst=2, window_s=60)
    assert limit.admit(REFUSED, 0)
    assert limit.admit(REFUSED, 1)
    assert limit.ended(60) == []
    assert limit.next_end is None


def test_kinds_do_not_share_their_limit() -> None:
    limit = LineLimit(burst=1, window_s=60)
    other = REFUSED._replace(text="shutting down")
    assert limit.admit(REFUSED, 0)
    assert limit.admit(other, 1)
    assert not limit.admit(REFUSED, 2)
    assert not limit.admit(other, 2)
    assert limit.ended(60) == [(REFUSED, 1)]
    assert limit.next_end == 61


def test_kinds_are_bounded() -> None:
    limit = LineLimit(burst=1, window_s=60, max_kinds=3)
    passed = [limit.admit(REFUSED._replace(text=str(n)), 0) for n in range(1000)]
    assert sum(passed) == 4
    assert limit.ended(60) == [(REFUSED._replace(text=OTHER_TEXTS), 996)]


class Lines:
    """What a limited log wrote; `counted` is set by a line that counts others."""

    def __init__(self) -> None:
        self.written: list[EventDict] = []
        self.counted = asyncio.Event()
        filtering = structlog.make_filtering_bound_logger(0)
        self.log = structlog.wrap_logger(None, processors=[self._take], wrapper_class=filtering)

    def _take(self, _logger: object, level: str, line: EventDict) -> EventDict:
        self.written.append({**line, "level": level})
        if line["event"] == "lines left out":
            self.counted.set()
        raise structlog.DropEvent


async def test_flood_of_lines_becomes_one_count_a_window() -> None:
    lines = Lines()
    log = LimitedLog(lines.log, LineLimit(burst=2, window_s=0.05))
    for n in range(100):
        log.write("error", "tunnel cannot be made", "netd is gone", peer=n)
    await asyncio.wait_for(lines.counted.wait(), 5)
    log.write("error", "tunnel cannot be made", "netd is gone", peer=100)
    log.close()
    line = {"event": "tunnel cannot be made", "level": "error", "text": "netd is gone"}
    count = {"event": "lines left out", "of": "tunnel cannot be made", "text": "netd is gone", "lines": 98}
    assert lines.written == [
        line | {"peer": 0},
        line | {"peer": 1},
        count | {"level": "error"},
        line | {"peer": 100},
    ]


async def test_counts_are_not_lost_at_the_end() -> None:
    lines = Lines()
    log = LimitedLog(lines.log, LineLimit(burst=1))
    for _ in range(3):
        log.write("info", "request refused", "malformed request line")
    log.close()
    assert [line.get("lines") for line in lines.written] == [None, 2]
