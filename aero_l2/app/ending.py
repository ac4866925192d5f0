"""Whether the end has been asked for, and how urgently; and what the log says while it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from aero_l2.observe.capture.captures import Captures
from aero_l2.tasks import unless

REMIND_S: Final = 60.0
LEAST_FINISH_S: Final = 1.0

_log = structlog.get_logger("aero_l2.app")


class Ending:
    """The wish that the server ends. `asked`: in good order. `at_once`: nobody is waited for any more."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()

    def ask(self) -> None:
        """End in good order; asking again changes nothing, since one stop may come as several signals."""
        self.asked.set()

    def insist(self) -> None:
        """End now."""
        self.asked.set()
        self.at_once.set()


async def remind(tunnels: Callable[[], int], drain_s: float, every_s: float = REMIND_S) -> None:
    """Log how many tunnels are left, and how long they may stay, until cancelled."""
    loop = asyncio.get_running_loop()
    over_at = loop.time() + drain_s
    while True:
        await asyncio.sleep(every_s)
        _log.info("still draining", tunnels=tunnels(), left_s=round(max(0.0, over_at - loop.time())))


async def finish(captures: Captures, timeout_s: float, ending: Ending) -> None:
    """Let captures get into their files: for so long, unless told to end at once, and a moment more."""
    await unless(ending.at_once, captures.finish(max(0.0, timeout_s)))
    incomplete = await captures.finish(LEAST_FINISH_S)
    if incomplete:
        _log.error("captures are not complete, the disk does not answer", captures=incomplete)
