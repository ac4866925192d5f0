"""Receive path of our own against the library's: messages per CPU second, interleaved, medians.

Run: .venv/bin/python bench/receive_path.py [rounds]

Feeds the same masked binary messages in socket-sized reads to `Receiver` both ways and sorts every batch as a
tunnel does. No sockets, no TAP: this is the parser's share only.
"""

from __future__ import annotations

import secrets
import statistics
import sys
import time
from collections.abc import Sequence

from websockets.utils import apply_mask

from aero_l2.wire.receive import Receiver
from aero_l2.wire.tunnel import Limits, encode, sort_batch

READ_BYTES = 64 * 1024
STREAM_MESSAGES = 20_000
LIMITS = Limits()


def stream_of(frame_bytes: int) -> list[bytes]:
    """`STREAM_MESSAGES` FRAME messages as a client sends them, cut into reads."""
    message = encode(0, secrets.token_bytes(frame_bytes))
    size = len(message)
    header = b"\x82" + (bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big"))
    frames = []
    for _ in range(STREAM_MESSAGES):
        mask = secrets.token_bytes(4)
        frames.append(header + mask + apply_mask(message, mask))
    stream = b"".join(frames)
    return [stream[at : at + READ_BYTES] for at in range(0, len(stream), READ_BYTES)]


def messages_per_cpu_second(reads: Sequence[bytes], *, library_only: bool) -> float:
    """One pass over the stream."""
    receiver = Receiver(LIMITS.max_message, library_only=library_only)
    frames = 0
    began = time.process_time()
    for data in reads:
        batch = receiver.receive(data)
        frames += len(sort_batch(batch.messages, LIMITS).frames)
        while batch.backlog:
            batch = receiver.receive(b"")
            frames += len(sort_batch(batch.messages, LIMITS).frames)
    spent = time.process_time() - began
    assert frames == STREAM_MESSAGES, frames
    return frames / spent


def main(rounds: int) -> None:
    """Print a table: frame size, messages per CPU second both ways, ratio."""
    print(f"{'frame bytes':>11} {'library':>12} {'own':>12} {'own/library':>12}   (median of {rounds})")
    for frame_bytes in (60, 590, 1514):
        reads = stream_of(frame_bytes)
        results: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(rounds):
            for library_only in (True, False):
                results[library_only].append(messages_per_cpu_second(reads, library_only=library_only))
        library, own = (statistics.median(results[way]) for way in (True, False))
        print(f"{frame_bytes:>11} {library:>12,.0f} {own:>12,.0f} {own / library:>11.1f}×")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
