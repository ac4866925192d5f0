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
from dataclasses import dataclass
from typing import Final, Protocol

from prometheus_client import Counter

from aero_l2.observe.metrics import Metrics
from aero_l2.quota.bucket import TokenBucket
from aero_l2.services.router import IPV6_MULTICAST, NoRouter
from aero_l2.session.early import EarlyFrames
from aero_l2.wire.send import join_frames

READS_PER_WAKE_UP: Final = 64
MIN_FRAME_BYTES: Final = 14

Admit = Callable[[Sequence[bytes]], int]
"""Frames for the client → how many of them, from the first on, it may still get."""


class Watch(Protocol):
    """Told of all frames of a batch, `size` bytes together, that the guest sent or gets; must not raise."""

    def __call__(self, frames: Sequence[bytes], size: int, *, inbound: bool) -> None: ...


def _nowhere(_: bytes) -> None:
    raise AssertionError("a pump that was started has somewhere to send to")


def _ignore(_: Sequence[bytes]) -> None:
    """Who was told of frames is not held on to by a pump that has stopped, and the other way round."""


@dataclass(slots=True)
class Traffic:
    """Frames and their bytes: from the guest, to it, and lost on either way."""

    frames_rx: int = 0
    bytes_rx: int = 0
    frames_tx: int = 0
    bytes_tx: int = 0
    frames_dropped: int = 0


class Pump:
    """Moves frames of one tunnel; between `start` and `stop` it owns the readiness of the TAP.

    send: takes the bytes of a batch of messages; has to be set before `start` and may be replaced.
    traffic: what has passed so far. watch: told of every frame of it, for captures; None costs nothing.

    Args:
        tap: non-blocking file descriptor; must stay open until `stop`.
        prefixes: what `send` gets before a frame of n bytes, at index n (`aero_l2.wire.framing`); frames from
            the TAP that are longer than there are prefixes for are dropped.
        admit: asked for each batch; None lets everything through.
        refused: told when not all of a batch was let through, after the rest of it was sent.
        delivered: told the frames that come for the client.
        failed: told once, in words, when the TAP can no longer be read.
        rate: frames of the guest that are passed on; what exceeds it is dropped. None is no limit.
    """

    def __init__(
        self,
        tap: int,
        *,
        prefixes: Sequence[bytes],
        send: Callable[[bytes], None] = _nowhere,
        failed: Callable[[str], None],
        metrics: Metrics,
        rate: TokenBucket | None = None,
        admit: Admit | None = None,
        refused: Callable[[], None] = lambda: None,
        delivered: Callable[[Sequence[bytes]], None] = _ignore,
    ) -> None:
        self._tap = tap
        self._max_frame = len(prefixes) - 1
        self._prefixes = prefixes
        self.send = send
        self.traffic = Traffic()
        self._admit = admit
        self._refused = refused
        self._failed = failed
        self._metrics = metrics
        self._rate = rate
        self._delivered = delivered
        self.watch: Watch | None = None
        self._loop = asyncio.get_running_loop()
        self._no_router = NoRouter(time.monotonic())
        self._running = False
        self._reading = False
        self._paused = False
        self._is_discarding = False
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
        self._delivered = _ignore

    def pause(self) -> None:
        """Stop reading the TAP: the client does not keep up."""
        self._paused = True
        self._update()

    def resume(self) -> None:
        """Read the TAP again."""
        self._paused = False
        self._update()

    def discard(self) -> None:
        """The client is away: what comes for it is read and counted as dropped, and costs it nothing."""
        self._is_discarding = True
        self.resume()

    def deliver(self, send: Callable[[bytes], None]) -> None:
        """The client is back, and takes what comes by `send`."""
        self.send = send
        self._is_discarding = False
        self.resume()

    def hold_early(self) -> None:
        """Keep frames for the internet back until `release_early`."""
        self._early = EarlyFrames()

    def release_early(self) -> None:
        """The NAT process is there: write what was kept back; idempotent."""
        early, self._early = self._early, None
        if early is not None:
            self._put(early.take())

    def to_tap(self, frames: Sequence[bytes]) -> None:
        """Write the frames of one read to the TAP. Never raises: what is not taken is counted as dropped."""
        if not frames:
            return
        metrics, traffic, size = self._metrics, self.traffic, sum(map(len, frames))
        if self.watch is not None:
            self.watch(frames, size, inbound=True)
        passed = self._within_rate(frames)
        self._put(passed)
        metrics.frames_rx.value += len(frames)
        metrics.bytes_rx.value += size
        traffic.frames_rx += len(frames)
        traffic.bytes_rx += size
        self._lose(metrics.dropped_rx["rate"], len(frames) - len(passed))

    def _within_rate(self, frames: Sequence[bytes]) -> Sequence[bytes]:
        if self._rate is None:
            return frames
        return frames[: self._rate.take(len(frames), time.monotonic())]

    def _lose(self, cause: Counter, frames: int) -> None:
        if frames:
            cause.inc(frames)
            self.traffic.frames_dropped += frames

    def _put(self, frames: Sequence[bytes]) -> None:
        causes = self._metrics.dropped_rx
        if not self._running:
            self._lose(causes["tap"], len(frames))
            return
        if self._early is not None:
            frames, lost = self._early.sort(frames)
            self._lose(causes["early_queue"], lost)
        short, untaken = self._write(frames)
        self._lose(causes["too_short"], short)
        self._lose(causes["tap"], untaken)

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

    def _write(self, frames: Sequence[bytes]) -> tuple[int, int]:
        """How many were too short to be frames, and how many the TAP did not take."""
        tap, write, short, untaken = self._tap, os.write, 0, 0
        for frame in frames:
            if len(frame) < MIN_FRAME_BYTES:
                short += 1
                continue
            if frame[0] == IPV6_MULTICAST:
                self._answer_solicitation(frame)
            try:
                write(tap, frame)
            except OSError:
                untaken += 1
        return short, untaken

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
        if self._is_discarding:
            self._delivered(frames)
            self._lose(self._metrics.dropped_tx["away"], len(frames))
            return
        if max(map(len, frames)) > self._max_frame:
            fitting = [frame for frame in frames if len(frame) <= self._max_frame]
            self._lose(self._metrics.dropped_tx["too_long"], len(frames) - len(fitting))
            frames = fitting
        admit = self._admit
        if frames and admit is None:
            self._deliver(frames)
        elif frames and admit is not None:
            self._deliver_admitted(frames, admit(frames))

    def _deliver_admitted(self, frames: list[bytes], admitted: int) -> None:
        if admitted:
            self._deliver(frames[:admitted])
        if admitted < len(frames):
            self._lose(self._metrics.dropped_tx["quota"], len(frames) - admitted)
            self._refused()

    def _deliver(self, frames: list[bytes]) -> None:
        metrics, traffic, size = self._metrics, self.traffic, sum(map(len, frames))
        metrics.frames_tx.value += len(frames)
        metrics.bytes_tx.value += size
        traffic.frames_tx += len(frames)
        traffic.bytes_tx += size
        if self.watch is not None:
            self.watch(frames, size, inbound=False)
        self._delivered(frames)
        self.send(join_frames(frames, self._prefixes))

    def _update(self) -> None:
        should_read = self._running and not self._paused
        if should_read == self._reading:
            return
        self._reading = should_read
        if should_read:
            self._loop.add_reader(self._tap, self._from_tap)
        else:
            self._loop.remove_reader(self._tap)
