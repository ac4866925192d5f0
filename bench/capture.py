"""What capturing costs: ``.venv/bin/python bench/capture.py [directory]``.

CPU time for a frame, of the event loop, which hands batches over, and of the writer's thread, which encodes
and writes them; by size of frames and batches, smallest of several rounds. Then how late the loop is while
the thread writes 90 MB a second. The directory is on the disk to be measured, by default for temporary files.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time

from aero_l2.observe.capture.captures import Captures
from aero_l2.observe.capture.rules import CaptureRules
from aero_l2.observe.metrics import Metrics

FRAMES, ROUNDS = 40_000, 7
SHAPES = ((60, 1), (60, 32), (1514, 1), (1514, 32))
AT_A_TIME = 64
MAX_WAITING = 1024 * 1024
LAG_S = 3.0


async def cost(folder: str, frame_bytes: int, batch: int) -> tuple[float, float]:
    """µs of a frame: of the loop, and of the writer's thread."""
    metrics = Metrics()
    captures = Captures(CaptureRules(folder, flush_interval_s=1.0), metrics)
    capture = captures.begin(1, lambda ended: None)
    frames = [bytes(frame_bytes)] * batch
    size, loop_s, began = frame_bytes * batch, 0.0, time.process_time()
    pauses_s = 0.0
    for _ in range(FRAMES // batch // AT_A_TIME):
        before = time.thread_time()
        for _ in range(AT_A_TIME):
            capture.take(frames, size, inbound=True)
        loop_s += time.thread_time() - before
        before = time.thread_time()
        while captures.waiting > MAX_WAITING:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.001)
        pauses_s += time.thread_time() - before
    before = time.thread_time()
    assert await captures.finish(60) == 0
    pauses_s += time.thread_time() - before
    spent = time.process_time() - began
    assert capture.capture.path is not None
    os.unlink(capture.capture.path)
    assert not metrics.registry.get_sample_value("l2_capture_frames_dropped_total")
    taken = FRAMES // batch // AT_A_TIME * AT_A_TIME * batch
    return loop_s / taken * 1e6, (spent - loop_s - pauses_s) / taken * 1e6


async def lag(folder: str, *, captured: bool) -> tuple[float, float]:
    """Median and largest lateness in ms of a loop that takes 60,000 full frames a second for some seconds."""
    captures = Captures(CaptureRules(folder, max_bytes=0, flush_interval_s=0.1), Metrics())
    capture = captures.begin(1, lambda ended: None)
    frames, late = [bytes(1514)] * 60, []
    end = time.monotonic() + LAG_S
    while time.monotonic() < end:
        due = time.monotonic() + 0.001
        if captured:
            capture.take(frames, 1514 * 60, inbound=True)
        await asyncio.sleep(0.001)
        late.append((time.monotonic() - due) * 1000)
    await captures.finish(60)
    assert capture.capture.path is not None
    os.unlink(capture.capture.path)
    late.sort()
    return late[len(late) // 2], late[-1]


def main(parent: str | None) -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        print("| bytes of a frame | frames of a batch | event loop, µs a frame | thread, µs a frame |")
        print("|---|---|---|---|")
        for frame_bytes, batch in SHAPES:
            rounds = [asyncio.run(cost(folder, frame_bytes, batch)) for _ in range(ROUNDS)]
            loop_us, thread_us = (min(column) for column in zip(*rounds, strict=True))
            print(f"| {frame_bytes} | {batch} | {loop_us:.2f} | {thread_us:.2f} |")
        print("\n| 60,000 frames a second | median lateness of the loop, ms | largest |\n|---|---|---|")
        for captured in (False, True):
            median, largest = asyncio.run(lag(folder, captured=captured))
            print(f"| {'captured' if captured else 'not captured'} | {median:.2f} | {largest:.2f} |")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
