"""The wire to one machine: frames in and out of a socket or a TAP. asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from aero_l2.attach.framing import Unframer, frame_stream

CHUNK_BYTES: Final = 256 * 1024
MESSAGE_BYTES: Final = 65536
BATCH_FRAMES: Final = 64


class Wire(Protocol):
    """One machine; whoever has it closes it."""

    async def receive(self) -> list[bytes]:
        """Frames of the machine, one at least; none: it is gone. Raises GarbledStream."""

    async def send(self, frames: Sequence[bytes]) -> int:
        """Hand frames to the machine, however long it takes; how many it could not take.

        Raises:
            OSError: it is gone.
        """

    def close(self) -> None:
        """Let go of the machine."""


class StreamWire:
    """A stream socket with a length before each frame: QEMU's ``-netdev stream``."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._unframer = Unframer()
        self._loop = asyncio.get_running_loop()

    async def receive(self) -> list[bytes]:
        """As `Wire.receive`."""
        while True:
            try:
                chunk = await self._loop.sock_recv(self._connection, CHUNK_BYTES)
            except OSError:
                return []
            frames = self._unframer.feed(chunk)
            if frames or not chunk:
                return frames
            await asyncio.sleep(0)

    async def send(self, frames: Sequence[bytes]) -> int:
        """As `Wire.send`."""
        await self._loop.sock_sendall(self._connection, frame_stream(frames))
        return 0

    def close(self) -> None:
        """As `Wire.close`."""
        self._connection.close()


class MessageWire:
    """A descriptor that carries a frame a read or write: a SOCK_SEQPACKET socket, or a TAP.

    ``owner`` is what is closed in the end.
    """

    def __init__(self, owner: socket.socket | int, *, lossy: bool = False) -> None:
        """lossy: a frame that cannot be written is lost, and the machine still there: a TAP that is down."""
        self._owner = owner
        self._fd = owner if isinstance(owner, int) else owner.fileno()
        self._lossy = lossy
        os.set_blocking(self._fd, False)

    async def receive(self) -> list[bytes]:
        """As `Wire.receive`."""
        frames: list[bytes] = []
        while True:
            try:
                while len(frames) < BATCH_FRAMES and (frame := os.read(self._fd, MESSAGE_BYTES)):
                    frames.append(frame)
                return frames
            except BlockingIOError:
                if frames:
                    return frames
            except OSError:
                return frames
            await readable(self._fd)

    async def send(self, frames: Sequence[bytes]) -> int:
        """As `Wire.send`."""
        loop = asyncio.get_running_loop()
        lost = 0
        for frame in frames:
            while True:
                try:
                    os.write(self._fd, frame)
                except BlockingIOError:
                    await _ready(loop.add_writer, loop.remove_writer, self._fd)
                    continue
                except OSError:
                    if not self._lossy:
                        raise
                    lost += 1
                break
        return lost

    def close(self) -> None:
        """As `Wire.close`."""
        if isinstance(self._owner, int):
            with contextlib.suppress(OSError):
                os.close(self._owner)
        else:
            self._owner.close()


async def readable(fd: int) -> None:
    """Wait until there is something to read, or an end."""
    loop = asyncio.get_running_loop()
    await _ready(loop.add_reader, loop.remove_reader, fd)


async def _ready(add: Callable[..., None], remove: Callable[[int], object], fd: int) -> None:
    ready = asyncio.Event()
    add(fd, ready.set)
    try:
        await ready.wait()
    finally:
        remove(fd)
