"""The TAP side of a tunnel: frames between a TAP's file descriptor and whoever sends them on.

Down (TAP → client): up to 64 reads a wake-up, handed over as one batch; while the client does not read, the
TAP is not read either, and frames fall off its queue in the kernel. Up (client → TAP): one write a frame;
what the kernel does not take is lost, as on any Ethernet, and counted.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable, Sequence
from typing import Final

from aero_l2.observe.metrics import Metrics
from aero_l2.quota.bucket import TokenBucket
from aero_l2.services.router import IPV6_MULTICAST, NoRouter
from aero_l2.session.early import EarlyFrames
from aero_l2.wire.send import join_frames

READS_PER_WAKE_UP: Final = 64
MIN_FRAME_BYTES: Final = 14


class Pump:
    """Moves frames of one tunnel; between `start` and `stop` it owns the readiness of the TAP.

    Args:
        tap: non-blocking file descriptor; must stay open until `stop`.
        prefixes: what `send` gets before a frame of n bytes, at index n (`aero_l2.wire.framing`); frames from
            the TAP that are longer than there are prefixes for are dropped.
        send: takes the bytes of a batch of messages.
        delivered: told the frames that `send` is about to take.
        failed: told once, in words, when the TAP can no longer be read.
        rate: frames of the guest that are passed on; what exceeds it is dropped. None is no limit.
    """

    def __init__(
        self,
        tap: int,
        *,
        prefixes: Sequence[bytes],
        send: Callable[[bytes], None],
        failed: Callable[[str], None],
        metrics: Metrics,
        rate: TokenBucket | None = None,
        delivered: Callable[[Sequence[bytes]], None] = lambda frames: None,
    ) -> None:
        self._tap = tap
        self._max_frame = len(prefixes) - 1
        self._prefixes = prefixes
        self._send = send
        self._failed = failed
        self._metrics = metrics
        self._rate = rate
        self._delivered = delivered
        self._loop = asyncio.get_running_loop()
        self._no_router = NoRouter(time.monotonic())
        self._running = False
        self._reading = False
        self._paused = False
        self._early: EarlyFrames | None = None

    def start(self) -> None:
        """Let frames flow."""
        self._running = True
        self._update()

    def stop(self) -> None:
        """Touch the TAP no more; idempotent. Must come before its file descriptor is closed."""
        self._running = False
        self.release_early()
        self._update()

    def pause(self) -> None:
        """Stop reading the TAP: the client does not keep up."""
        self._paused = True
        self._update()

    def resume(self) -> None:
        """Read the TAP again."""
        self._paused = False
        self._update()

    def hold_early(self) -> None:
        """Keep frames for the internet back until `release_early`."""
        self._early = EarlyFrames()

    def release_early(self) -> None:
        """The NAT process is there: write what was kept back; idempotent."""
        early, self._early = self._early, None
        if early is not None:
            self._count_dropped(self._put(early.take()))

    def to_tap(self, frames: Sequence[bytes]) -> None:
        """Write the frames of one read to the TAP. Never raises: what is not taken is counted as dropped."""
        if not frames:
            return
        passed = self._within_rate(frames)
        dropped = len(frames) - len(passed) + self._put(passed)
        metrics = self._metrics
        metrics.frames_rx.inc(len(frames))
        metrics.bytes_rx.inc(sum(map(len, frames)))
        self._count_dropped(dropped)

    def _within_rate(self, frames: Sequence[bytes]) -> Sequence[bytes]:
        if self._rate is None:
            return frames
        return frames[: self._rate.take(len(frames), time.monotonic())]

    def _count_dropped(self, frames: int) -> None:
        if frames:
            self._metrics.frames_dropped.inc(frames)

    def _put(self, frames: Sequence[bytes]) -> int:
        """How many of `frames` were lost."""
        if not self._running:
            return len(frames)
        if self._early is None:
            return self._write(frames)
        now, lost = self._early.sort(frames)
        return lost + self._write(now)

    @property
    def is_paused(self) -> bool:
        """Whether frames for the client wait in the TAP."""
        return self._paused

    def inject(self, to_tap: Sequence[bytes], to_client: Sequence[bytes]) -> None:
        """Frames of our own making, both ways; those to the client count as any other."""
        if not self._running:
            return
        self._write(to_tap)
        self._forward(list(to_client))

    def _write(self, frames: Sequence[bytes]) -> int:
        tap, write, dropped = self._tap, os.write, 0
        for frame in frames:
            if len(frame) < MIN_FRAME_BYTES:
                dropped += 1
                continue
            if frame[0] == IPV6_MULTICAST:
                self._answer_solicitation(frame)
            try:
                write(tap, frame)
            except OSError:
                dropped += 1
        return dropped

    def _answer_solicitation(self, frame: bytes) -> None:
        if not self._paused and (answer := self._no_router.answer(frame, time.monotonic())) is not None:
            self._forward([answer])

    def _from_tap(self) -> None:
        """The TAP is readable: take a batch, write it once."""
        frames, failure = self._read()
        if frames:
            self._forward(frames)
        if failure is not None:
            self.stop()
            self._failed(f"the TAP cannot be read: {failure.strerror}")

    def _read(self) -> tuple[list[bytes], OSError | None]:
        tap, read, size = self._tap, os.read, self._max_frame + 1
        frames: list[bytes] = []
        try:
            for _ in range(READS_PER_WAKE_UP):
                frame = read(tap, size)
                if not frame:
                    return frames, OSError(errno.EIO, "end of file")
                frames.append(frame)
        except BlockingIOError:
            pass
        except OSError as failure:
            return frames, failure
        return frames, None

    def _forward(self, frames: list[bytes]) -> None:
        metrics = self._metrics
        if max(map(len, frames)) > self._max_frame:
            fitting = [frame for frame in frames if len(frame) <= self._max_frame]
            metrics.frames_dropped.inc(len(frames) - len(fitting))
            frames = fitting
            if not frames:
                return
        metrics.frames_tx.inc(len(frames))
        metrics.bytes_tx.inc(sum(map(len, frames)))
        self._delivered(frames)
        self._send(join_frames(frames, self._prefixes))

    def _update(self) -> None:
        should_read = self._running and not self._paused
        if should_read == self._reading:
            return
        self._reading = should_read
        if should_read:
            self._loop.add_reader(self._tap, self._from_tap)
        else:
            self._loop.remove_reader(self._tap)
