"""A command with its network behind a tunnel, seen from the process that holds the tunnel. asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from aero_l2.attach.errors import CommandNotStarted
from aero_l2.attach.unixsockets import Serve
from aero_l2.attach.wires import MessageWire, readable
from aero_l2.attach.words import GO, READY

SECRETS: Final = "AERO_L2_CLIENT_TOKEN"
"""Variables that begin so stay here."""

_STAGE: Final = "aero_l2.attach.inside"
_MESSAGE_BYTES: Final = 4096


def environment_for(environment: Mapping[str, str]) -> dict[str, str]:
    """What the command gets of our environment: all but the credential."""
    return {name: value for name, value in environment.items() if not name.startswith(SECRETS)}


class Command:
    """A command that is ready to start; as a port, its TAP. Made by `prepared`."""

    def __init__(self, process: asyncio.subprocess.Process, channel: socket.socket, tap: int) -> None:
        self._process = process
        self._channel = channel
        self._tap = tap
        self.is_started = False

    async def run(self, serve: Serve) -> None:
        """Carry the frames of its TAP until cancelled: the device stays while a program is left inside."""
        await serve(MessageWire(os.dup(self._tap), lossy=True))
        await asyncio.Event().wait()

    async def start(self) -> None:
        """Let it begin. Raises CommandNotStarted."""
        self.is_started = True
        self._channel.send(GO)
        said, _ = await _receive(self._channel)
        if said:
            raise CommandNotStarted(said.decode(errors="replace"), await self._process.wait())

    async def wait(self) -> int:
        """Its exit status, 128 and the number if a signal ended it."""
        status = await self._process.wait()
        return 128 - status if status < 0 else status

    def heard(self, number: signal.Signals, from_terminal: bool) -> None:
        """Pass a signal on that was sent to us alone."""
        if not from_terminal:
            self._signal(number)

    def hang_up(self) -> None:
        """Tell it that its line is gone for good, as a terminal does: shells take that for an end, too."""
        self._signal(signal.SIGHUP)
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self.is_started:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


@asynccontextmanager
async def prepared(command: Sequence[str], environment: Mapping[str, str]) -> AsyncIterator[Command]:
    """Make the namespaces of a command, which waits in them for `Command.start`.

    Afterwards nothing of it is left unless it was started.

    Raises:
        CommandNotStarted: something is missing; the text says what.
    """
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, contextlib.ExitStack() as stack:
        ours.setblocking(False)
        with its:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-m", _STAGE, str(its.fileno()), *command),
                env=dict(environment),
                pass_fds=(its.fileno(),),
            )
        said, descriptors = await _receive(ours)
        for descriptor in descriptors:
            stack.callback(_close, descriptor)
        if said != READY or len(descriptors) != 1:
            await process.wait()
            raise CommandNotStarted(said.decode(errors="replace") or "its process ended")
        made = Command(process, ours, descriptors[0])
        try:
            yield made
        finally:
            if not made.is_started:
                ours.close()  # which ends it
                await process.wait()


async def _receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    """A message and its descriptors; nothing at the end."""
    await readable(channel.fileno())
    try:
        said, descriptors, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, 1)
    except OSError:
        return b"", []
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return said, descriptors


def _close(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.close(descriptor)
