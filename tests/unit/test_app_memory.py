"""What the C library holds unused is given back, while tunnels come and go."""

import asyncio
import contextlib
import gc
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

from aero_l2.app.memory import give_back, trimmer

MIB = 1 << 20


@asynccontextmanager
async def running(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def held() -> int:
    """Bytes of this process that no file is behind."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss_Anon:"))


def test_what_is_free_below_something_in_use_is_given_back() -> None:
    trim = trimmer()
    assert trim is not None
    blocks = [bytearray(3000) for _ in range(20_000)]
    kept = blocks[::500]
    full = held()
    blocks.clear()
    assert full - held() < 20 * MIB, "the C library gives it back by itself"
    trim()
    assert full - held() > 40 * MIB
    assert len(kept) == 40


async def test_what_python_has_aside_is_given_back_once_there_are_no_tunnels() -> None:
    tunnels, seen, last = iter([2, 1, 0]), list[int](), asyncio.Event()
    gc.collect()
    empty = sys.getallocatedblocks()

    def count() -> int:
        seen.append(sys.getallocatedblocks() - empty)
        has = next(tunnels, None)
        if has is None:
            last.set()
        return has or 0

    _ = [tuple(range(1, 2 + number % 16)) for number in range(32_000)]
    del _
    async with running(give_back(count, lambda: None, every_s=0)), asyncio.timeout(20):
        await last.wait()
    assert min(seen[:3]) > 10_000
    assert seen[3] < 2_000


async def test_it_is_done_while_there_are_tunnels_and_once_after() -> None:
    tunnels, done, last = [0, 0, 2, 1, 0, 0, 1, 0, 0], list[int](), asyncio.Event()
    turn = -1

    def count() -> int:
        nonlocal turn
        turn = min(turn + 1, len(tunnels) - 1)
        if turn == len(tunnels) - 1:
            last.set()
        return tunnels[turn]

    async with running(give_back(count, lambda: done.append(turn), every_s=0)), asyncio.timeout(20):
        await last.wait()
    assert done == [2, 3, 4, 6, 7]
