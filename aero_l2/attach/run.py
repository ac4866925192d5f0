"""From the first attempt to the end: with machines on a port, or with a command. asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Mapping, Sequence
from typing import Final

from aero_l2.attach.behind import Command, prepared
from aero_l2.attach.patch import Patch, Port
from aero_l2.attach.show import Display
from aero_l2.attach.signals import Signals

ENDINGS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def run_port(port: Port, patch: Patch, display: Display) -> None:
    """Serve the port until one of `ENDINGS` comes; then the tunnel is closed.

    Raises:
        ClientError, AttachError: as `Patch.run`.
    """
    with display:
        joined = asyncio.create_task(patch.run(port), name="patch")
        for number in ENDINGS:
            asyncio.get_running_loop().add_signal_handler(number, joined.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await joined


async def run_command(
    command: Sequence[str], environment: Mapping[str, str], patch: Patch, display: Display
) -> int:
    """Run a command behind the tunnel as soon as that is usable; its exit status, 128 + n after signal n.

    Raises:
        CommandNotStarted: it was not started.
        ClientError: there is no tunnel any more, for good. The command was hung up, and has ended.
    """
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[signal.Signals] = loop.create_future()
    started: list[Command] = []

    def heard(number: signal.Signals, from_terminal: bool) -> None:
        if started:
            started[0].heard(number, from_terminal)
        elif not asked.done():
            asked.set_result(number)

    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # we may write while the command has the terminal
    with Signals(heard), display:
        async with prepared(command, environment) as inside:
            joined = asyncio.create_task(patch.run(inside), name="patch")
            usable = asyncio.create_task(patch.usable.wait(), name="usable")
            try:
                await asyncio.wait((joined, usable, asked), return_when=asyncio.FIRST_COMPLETED)
                if asked.done():
                    return 128 + asked.result()
                if joined.done():
                    joined.result()
                started.append(inside)
                await inside.start()
                return await _until_it_ends(inside, joined, display)
            finally:
                joined.cancel()
                usable.cancel()
                await asyncio.gather(joined, usable, return_exceptions=True)


async def _until_it_ends(inside: Command, joined: asyncio.Task[None], display: Display) -> int:
    ended = asyncio.create_task(inside.wait(), name="command")
    await asyncio.wait((joined, ended), return_when=asyncio.FIRST_COMPLETED)
    if not ended.done():
        display.change("the tunnel is gone for good", why="the command is hung up")
        inside.hang_up()
        await ended
        joined.result()
    return ended.result()
