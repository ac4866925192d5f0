"""The gate in front of a full queue: it waits for a moment, then drops until there is room."""

from __future__ import annotations

import asyncio

import pytest

from aero_l2.attach.gate import Gate
from aero_l2.client.queue import Closable


async def admitted(gate: Gate, queue: Closable, count: int) -> list[bool]:
    return [await gate.admit(bytes([number % 256]), queue.offer, queue.put) for number in range(count)]


async def test_frames_pass_while_there_is_room() -> None:
    queue = Closable(3)
    assert await admitted(Gate(), queue, 3) == [True] * 3
    assert await queue.take() == [b"\0", b"\1", b"\2"]


async def test_a_frame_waits_for_room() -> None:
    gate, queue = Gate(patience_s=30), Closable(1)
    assert await admitted(gate, queue, 1) == [True]
    waiting = asyncio.create_task(gate.admit(b"next", queue.offer, queue.put))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await queue.take() == [b"\0"]
    assert await waiting
    assert await queue.take() == [b"next"]


async def test_only_the_first_frame_at_a_full_queue_waits_and_all_are_dropped() -> None:
    loop = asyncio.get_running_loop()
    gate, queue = Gate(patience_s=0.05), Closable(1)
    began = loop.time()
    assert await admitted(gate, queue, 1000) == [True] + [False] * 999
    assert loop.time() - began < 5
    assert len(queue) == 1


async def test_it_waits_again_once_there_was_room() -> None:
    gate, queue = Gate(patience_s=0.05), Closable(1)
    assert await admitted(gate, queue, 3) == [True, False, False]
    await queue.take()
    assert await admitted(gate, queue, 1) == [True]
    waiting = asyncio.create_task(gate.admit(b"next", queue.offer, queue.put))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert not await waiting


async def test_the_end_of_a_queue_passes_through() -> None:
    gate, queue = Gate(), Closable(1)
    queue.close(OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        await admitted(gate, queue, 1)
