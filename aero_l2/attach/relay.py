"""Between one machine and one tunnel, each of which may be away: frames go through, or are dropped and
counted; none waits for the other side to come back. asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aero_l2.attach.gate import PATIENCE_S, Gate
from aero_l2.attach.wires import Wire
from aero_l2.client import Tunnel, TunnelClosed
from aero_l2.client.queue import Closable
from aero_l2.wire.tunnel import DEFAULT_MAX_FRAME_PAYLOAD

MIN_FRAME: Final = 14
MAX_FRAME: Final = DEFAULT_MAX_FRAME_PAYLOAD
"""A longer one would end the tunnel: the server refuses it (docs/protocol.md)."""
QUEUED_FRAMES: Final = 256


@dataclass(slots=True)
class Counters:
    """What went through since the start: Ethernet frames and their bytes. sent: by the machine.

    dropped_…: the machine's, while there was no tunnel, for a full queue in front of it, for a length no
    frame has; the server's, while there was no machine, for one that does not take them.
    """

    frames_sent: int = 0
    bytes_sent: int = 0
    frames_received: int = 0
    bytes_received: int = 0
    dropped_no_tunnel: int = 0
    dropped_queue_full: int = 0
    dropped_bad_length: int = 0
    dropped_no_machine: int = 0
    dropped_machine_slow: int = 0

    @property
    def dropped(self) -> int:
        """All drops."""
        return (
            self.dropped_no_tunnel
            + self.dropped_queue_full
            + self.dropped_bad_length
            + self.dropped_no_machine
            + self.dropped_machine_slow
        )


class Relay:
    """The place where machine and tunnel meet."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self.counters = Counters()
        self.tunnel: Tunnel | None = None
        self._machine: Closable | None = None
        self._to_tunnel = Gate(patience_s)
        self._to_machine = Gate(patience_s)

    @property
    def has_machine(self) -> bool:
        """Whether a machine is attached."""
        return self._machine is not None

    async def serve_tunnel(self, tunnel: Tunnel) -> None:
        """Carry frames of a tunnel until it ends. Raises TunnelClosed."""
        self.tunnel = tunnel
        try:
            while True:
                await self._received(await tunnel.receive_frames())
        finally:
            self.tunnel = None

    async def serve_machine(self, wire: Wire) -> None:
        """Carry frames of a machine until it is gone. Raises GarbledStream."""
        queue = Closable(QUEUED_FRAMES)
        self._machine = queue
        try:
            async with asyncio.TaskGroup() as ways:
                writer = ways.create_task(self._write(wire, queue), name="machine writer")
                await self._read(wire)
                writer.cancel()
        except BaseExceptionGroup as failed:
            if faults := [fault for fault in failed.exceptions if not isinstance(fault, OSError)]:
                raise faults[0] from None
        finally:
            self._machine = None
            queue.close(OSError("the machine is gone"), drop=True)
            wire.close()

    # -- from the machine

    async def _read(self, wire: Wire) -> None:
        while frames := await wire.receive():
            await self._sent(frames)
            await asyncio.sleep(0)  # a machine that floods leaves the others their turn

    async def _sent(self, frames: Sequence[bytes]) -> None:
        counters = self.counters
        for frame in frames:
            tunnel = self.tunnel
            if not MIN_FRAME <= len(frame) <= MAX_FRAME:
                counters.dropped_bad_length += 1
            elif tunnel is None:
                counters.dropped_no_tunnel += 1
            else:
                await self._send(tunnel, frame)

    async def _send(self, tunnel: Tunnel, frame: bytes) -> None:
        counters = self.counters
        try:
            if await self._to_tunnel.admit(frame, tunnel.offer_frame, tunnel.send_frame):
                counters.frames_sent += 1
                counters.bytes_sent += len(frame)
            else:
                counters.dropped_queue_full += 1
        except TunnelClosed:
            counters.dropped_no_tunnel += 1

    # -- to the machine

    async def _received(self, frames: Sequence[bytes]) -> None:
        counters = self.counters
        for frame in frames:
            machine = self._machine
            if machine is None:
                counters.dropped_no_machine += 1
                continue
            try:
                if not await self._to_machine.admit(frame, machine.offer, machine.put):
                    counters.dropped_machine_slow += 1
            except OSError:
                counters.dropped_no_machine += 1

    async def _write(self, wire: Wire, queue: Closable) -> None:
        counters = self.counters
        while True:
            frames = await queue.take()
            lost = await wire.send(frames)
            counters.dropped_machine_slow += lost
            counters.frames_received += len(frames) - lost
            counters.bytes_received += sum(map(len, frames))
