"""What the C library holds unused is given back, while tunnels come and go."""

import asyncio
import contextlib
from pathlib import Path

from aero_l2.app.memory import give_back, trimmer

MIB = 1 << 20


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


async def test_it_is_done_while_there_are_tunnels_and_once_after() -> None:
    tunnels, done, last = [0, 0, 2, 1, 0, 0, 1, 0, 0], list[int](), asyncio.Event()
    turn = -1

    def count() -> int:
        nonlocal turn
        turn = min(turn + 1, len(tunnels) - 1)
        if turn == len(tunnels) - 1:
            last.set()
        return tunnels[turn]

    task = asyncio.create_task(give_back(count, lambda: done.append(turn), every_s=0))
    async with asyncio.timeout(20):
        await last.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert done == [2, 3, 4, 6, 7]
