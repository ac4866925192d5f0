"""Readiness follows what happens to segments, whoever asked for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from structlog.testing import capture_logs
from support.wait import until

from aero_l2.app import helper
from aero_l2.errors import SegmentUnavailable
from aero_l2.session import readiness as module
from aero_l2.session.ports import Segment
from aero_l2.session.readiness import TRIAL_SESSION, Readiness
from netns.errors import NetdUnavailable


class Opener:
    """Segments that can be made or not; the release of trials can be held up."""

    def __init__(self) -> None:
        self.broken = ""
        self.hangs = False
        self.trials = 0
        self.release = asyncio.Event()
        self.release.set()

    def __call__(self, session_id: int) -> AbstractAsyncContextManager[Segment]:
        return self._open(session_id)

    @asynccontextmanager
    async def _open(self, session_id: int) -> AsyncIterator[Segment]:
        self.trials += session_id == TRIAL_SESSION
        if self.hangs and session_id != TRIAL_SESSION:
            await asyncio.Event().wait()
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


async def test_client_that_leaves_before_its_tunnel_is_there_has_another_one_tried(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not patient enough to hear that there will be none."""
    readiness = Readiness(opener)
    await asyncio.wait_for(readiness.wait(), 5)
    monkeypatch.setattr(module, "DOUBT_S", 0.0)
    opener.hangs, opener.broken = True, "nft hangs"
    task = asyncio.create_task(readiness.open(1).__aenter__())
    await asyncio.sleep(0)
    task.cancel()
    await until(lambda: readiness.unready_reason() == "nft hangs", "the trial has shown it")
    opener.broken = ""
    await until(lambda: readiness.unready_reason() is None, "it is ready again")
    await readiness.close()


class Netd:
    """Answers while it is told to."""

    def __init__(self) -> None:
        self.questions = 0
        self.is_silent = False

    async def answers(self) -> None:
        self.questions += 1
        if self.is_silent:
            raise NetdUnavailable("it is silent")


async def test_silence_of_netd_is_noticed_though_nobody_asks_for_a_tunnel(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "PAUSE_S", 0.01)
    readiness, netd = Readiness(opener), Netd()
    await asyncio.wait_for(readiness.wait(), 5)
    watching = asyncio.create_task(helper.watch(netd, readiness))  # type: ignore[arg-type]
    await until(lambda: netd.questions > 2 * helper.PATIENCE, "it answers, and all is well")
    assert readiness.unready_reason() is None
    opener.broken, asked, netd.is_silent = "it is silent", netd.questions, True
    with capture_logs() as lines:
        await until(lambda: readiness.unready_reason() == "it is silent", "noticed")
        assert netd.questions >= asked + helper.PATIENCE
        await until(lambda: netd.questions > asked + 3 * helper.PATIENCE, "for a while")
        opener.broken, netd.is_silent = "", False
        await until(lambda: readiness.unready_reason() is None, "it is ready again")
    assert [line["event"] for line in lines] == ["tunnels cannot be made", "tunnels can be made"]
    watching.cancel()
    await readiness.close()


async def test_verdict_keeps_it_unready_though_tunnels_can_be_made_until_it_is_gone(opener: Opener) -> None:
    said = "clock: 1970-01-01 cannot be"

    async def verdict() -> str:
        return said

    readiness = Readiness(opener, verdict)
    waiting = asyncio.create_task(readiness.wait())
    await until(lambda: opener.trials > 2, "trials are made")
    assert readiness.unready_reason() == said
    async with readiness.open(1):
        assert readiness.unready_reason() == said, "a tunnel that can be made says nothing about it"
    assert not waiting.done()
    said = ""
    await asyncio.wait_for(waiting, 5)
    assert readiness.unready_reason() is None
    await readiness.close()


async def test_log_says_what_to_type_where_that_is_known(opener: Opener) -> None:
    readiness = Readiness(opener, fix=lambda reason: "modprobe tun" if "tun" in reason else "")
    with capture_logs() as lines:
        readiness.lost("no tun")
        readiness.lost("no idea")
    assert [line.get("fix") for line in lines] == ["modprobe tun", None]
    await readiness.close()
