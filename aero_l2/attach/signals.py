"""Signals for a command that runs beside us in the same process group: sigwaitinfo(2) on a thread.

A terminal's signals reach the command by themselves; those that a process sent to us alone have to be passed
on. Only siginfo tells the one from the other.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

PASSED_ON: Final = frozenset(
    (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
)


class Signals:
    """Takes `PASSED_ON` signals away from us while it is entered; there is one such object in a process.

    heard: called in the event loop with the signal, and whether the terminal sent it. Programs that are
    started meanwhile inherit the blocked signals, and have to unblock them.
    """

    def __init__(self, heard: Callable[[signal.Signals, bool], None]) -> None:
        self._heard = heard
        self._before: set[signal.Signals] = set()

    def __enter__(self) -> Self:
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # type: ignore[assignment]
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._listen, args=(loop,), name="signals", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """They stay blocked: the thread is still there to take them, and we are about to end."""

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            came = signal.sigwaitinfo(PASSED_ON)
            try:
                # si_code over 0: the kernel's own, sigaction(2)
                loop.call_soon_threadsafe(self._heard, signal.Signals(came.si_signo), came.si_code > 0)
            except RuntimeError:  # the loop is closed
                return
