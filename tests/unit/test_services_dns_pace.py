import asyncio
import itertools
import time

import pytest

from aero_l2.services.dns.pace import REST, Pace

COST = 10_000


async def test_first_answer_goes_at_once_and_the_others_one_after_the_other() -> None:
    pace, over = Pace(), []

    async def read() -> None:
        await pace.take(COST)
        over.append(time.monotonic())

    await asyncio.gather(*(read() for _ in range(4)))
    steps = [later - earlier for earlier, later in itertools.pairwise(over)]
    assert min(steps) >= 0.9 * COST * REST / 1e6


@pytest.mark.slow
async def test_who_gives_up_uses_nothing_up() -> None:
    pace = Pace()
    await pace.take(1_000_000)
    waiting = [asyncio.ensure_future(pace.take(1_000_000)) for _ in range(100)]
    await asyncio.sleep(0)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pace.take(1), 0.1)
    await asyncio.wait_for(pace.take(1), 2 * REST)
