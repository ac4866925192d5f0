"""What the log says while open tunnels are waited for."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs
from support.wait import until

from aero_l2.app.ending import remind


async def test_drain_says_now_and_then_how_many_are_left_and_how_long_they_may_stay() -> None:
    with capture_logs() as lines:
        reminding = asyncio.create_task(remind(lambda: 3, 600.0, every_s=0.01))
        await until(lambda: len(lines) > 1, "it says so again")
        reminding.cancel()
    assert lines[0]["event"] == "still draining"
    assert lines[0]["tunnels"] == 3
    assert 500 < lines[0]["left_s"] <= 600
