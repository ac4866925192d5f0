"""The server's end of the control socket, at whose other end is the supervisor (`netns.control`)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Final

import structlog

from aero_l2.app.ending import Ending
from aero_l2.tasks import spawn
from netns import control
from netns.client import NetdClient
from netns.control import Word
from netns.errors import NetdUnavailable

UNWELL_PAUSE_S: Final = 0.5
"""Between two looks at a netd that does not answer."""

_log = structlog.get_logger(component="server")


class Supervised:
    """Attaches each netd whose socket comes, answers for the loop and netd, and says how it goes.

    A supervisor that is gone is no reason to drain: who starts the service anew needs the port.
    """

    def __init__(self, supervisor: socket.socket, netd: NetdClient, ending: Ending) -> None:
        self._socket = supervisor
        self._netd = netd
        self._ending = ending
        self._answering: asyncio.Task[None] | None = None
        supervisor.setblocking(False)
        asyncio.get_running_loop().add_reader(supervisor.fileno(), self._readable)
        self._readable()  # the first netd's socket is there already: who comes first finds it

    def say(self, word: Word, text: str = "") -> None:
        """Tell the supervisor; it may be gone, or too busy, and nothing here depends on it."""
        with contextlib.suppress(OSError):
            self._socket.send(control.encode(word, text))

    def _readable(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._socket, control.LONGEST, 1, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        for descriptor in descriptors:
            self._netd.attach(socket.socket(fileno=descriptor))
        if not data:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            _log.error("the supervisor is gone")
            self._ending.insist()
        elif data == control.END_NOW:
            _log.warning("told again to end: nobody is waited for")
            self._ending.insist()
        elif data == control.WELL and (self._answering is None or self._answering.done()):
            self._answering = spawn(self._answer_when_well(), name="watchdog")

    async def _answer_when_well(self) -> None:
        """That this runs says that the loop does; netd is asked."""
        while True:
            try:
                await self._netd.answers()
            except NetdUnavailable:
                await asyncio.sleep(UNWELL_PAUSE_S)
            else:
                self.say(Word.WELL)
                return
