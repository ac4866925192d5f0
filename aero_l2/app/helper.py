"""Whether the network helper (netd) answers, asked all the time.

Clients may give up before a request of theirs shows that it does not, and where nobody comes nobody shows it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aero_l2.session.readiness import Readiness
from netns.client import NetdClient
from netns.errors import NetdUnavailable

PAUSE_S: Final = 2.5
"""From one question to the next."""
PATIENCE: Final = 4
"""So many without an answer, one after the other, are no delay any more: 10 s, or a little more."""


async def watch(netd: NetdClient, readiness: Readiness) -> None:
    """Make the process unready while netd does not answer, until cancelled; the trials find it again."""
    loop = asyncio.get_running_loop()
    unanswered = 0
    while True:
        asked_at = loop.time()
        try:
            await netd.answers()
        except NetdUnavailable as silence:
            unanswered += 1
            if unanswered >= PATIENCE:
                readiness.lost(str(silence))
        else:
            unanswered = 0
        await asyncio.sleep(max(0.0, asked_at + PAUSE_S - loop.time()))
