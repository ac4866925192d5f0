"""Readiness follows what happens to segments, whoever asked for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from support.wait import until

from aero_l2.errors import SegmentUnavailable
from aero_l2.session import readiness as module
from aero_l2.session.ports import Segment
from aero_l2.session.readiness import TRIAL_SESSION, Readiness


class Opener:
    """Segments that can be made or not; the release of trials can be held up."""

    def __init__(self) -> None:
        self.broken = ""
        self.trials = 0
        self.release = asyncio.Event()
        self.release.set()

    def __call__(self, session_id: int) -> AbstractAsyncContextManager[Segment]:
        return self._open(session_id)

    @asynccontextmanager
    async def _open(self, session_id: int) -> AsyncIterator[Segment]:
        self.trials += session_id == TRIAL_SESSION
        if self.broken:
            raise SegmentUnavailable(self.broken)
        yield None  # type: ignore[misc]  # nobody looks inside
        await self.release.wait()


@pytest.fixture
def opener(monkeypatch: pytest.MonkeyPatch) -> Opener:
    monkeypatch.setattr(module, "TRIAL_INTERVAL_S", 0.01)
    return Opener()


async def test_process_is_ready_after_the_first_trial(opener: Opener) -> None:
    readiness = Readiness(opener)
    assert readiness.unready_reason() == "starting"
    await asyncio.wait_for(readiness.wait(), 5)
    assert readiness.unready_reason() is None
    await readiness.close()


async def test_failing_tunnel_makes_it_unready_until_a_trial_succeeds(opener: Opener) -> None:
    readiness = Readiness(opener)
    await asyncio.wait_for(readiness.wait(), 5)
    opener.broken = "no /dev/net/tun"
    with pytest.raises(SegmentUnavailable):
        async with readiness.open(1):
            pass
    assert readiness.unready_reason() == "no /dev/net/tun"
    before = opener.trials
    await until(lambda: opener.trials > before + 2, "trials go on")
    opener.broken = ""
    await until(lambda: readiness.unready_reason() is None, "it is ready again")
    await readiness.close()


async def test_failure_while_a_trial_is_released_is_tried_again(opener: Opener) -> None:
    opener.release.clear()
    readiness = Readiness(opener)
    await asyncio.wait_for(readiness.wait(), 5)
    opener.broken = "out of descriptors"
    with pytest.raises(SegmentUnavailable):
        async with readiness.open(1):
            pass
    opener.broken = ""
    opener.release.set()
    await until(lambda: readiness.unready_reason() is None, "it is ready again")
    await readiness.close()
