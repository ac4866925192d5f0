"""The live view: a thread that reads the server, and the terminal."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import Final

from aero_l2.admin.client import NoAnswer
from aero_l2.top.snapshot import document
from aero_l2.top.source import Reading, Source
from aero_l2.top.state import Action, State
from aero_l2.top.terminal import Terminal
from aero_l2.top.view import screen
from aero_l2.web.echo import echo

_BLINK_S: Final = 1.0
"""How often the screen is drawn while nothing comes: times on it go on."""


class _Reader(threading.Thread):
    """Reads the server every `interval_s`, and kicks where it is told to: neither keeps a key waiting."""

    def __init__(self, source: Source, interval_s: float, told: Callable[[], None]) -> None:
        super().__init__(name="top reader", daemon=True)
        self._source = source
        self._interval_s = interval_s
        self._told = told
        self._orders: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self.found: queue.SimpleQueue[Reading | str] = queue.SimpleQueue()
        """Looks, and what became of kicks."""

    def look_now(self) -> None:
        self._orders.put(None)

    def kick(self, session: int) -> None:
        self._orders.put(session)

    def run(self) -> None:
        while True:
            began = time.monotonic()
            self._tell(self._source.read())
            try:
                session = self._orders.get(timeout=max(0.0, began + self._interval_s - time.monotonic()))
            except queue.Empty:
                continue
            if session is not None:
                self._tell(self._kick(session))

    def _kick(self, session: int) -> str:
        try:
            answer = self._source.ask(f"kick {session}")
        except NoAnswer as fault:
            return echo(str(fault))
        return f"closed session {session}" if answer["ok"] else echo(str(answer.get("error")))

    def _tell(self, what: Reading | str) -> None:
        self.found.put(what)
        self._told()


class Live:
    """The view on one terminal."""

    def __init__(self, source: Source, interval_s: float, terminal: Terminal, state: State) -> None:
        self._terminal = terminal
        self._state = state
        self._reader = _Reader(source, interval_s, terminal.wake)
        self._before: Reading | None = None

    def run(self) -> int:
        """Until it is told to quit. Returns the exit status: 0, or 128 + n after a signal other than Ctrl-C.

        Raises OSError when the terminal is gone.
        """
        with self._terminal.taken() as terminal:
            self._reader.start()
            while terminal.ended_by is None:
                terminal.draw(screen(self._state, *terminal.size, time.monotonic()))
                for key in terminal.wait(_BLINK_S):
                    if not self._pressed(key):
                        return 0
                self._take_found()
            return 0 if terminal.ended_by == signal.SIGINT else 128 + terminal.ended_by

    def _pressed(self, key: str) -> bool:
        """Whether it goes on."""
        action = self._state.key(key)
        if action is Action.KICK and self._state.kicking is not None:
            self._reader.kick(self._state.kicking)
            self._state.kicking = None
        elif action is Action.NOW:
            self._reader.look_now()
        return action is not Action.QUIT

    def _take_found(self) -> None:
        while not self._reader.found.empty():
            found = self._reader.found.get()
            if isinstance(found, str):
                self._state.message = found
            else:
                self._take(found)

    def _take(self, reading: Reading) -> None:
        """What cannot be read leaves what was seen last, and since when that is."""
        state = self._state
        if reading.is_empty:
            if state.failing_since is None:
                state.failing_since = reading.at
            if state.shown is None:
                state.message = next(iter(reading.missing.values()), "")
            return
        state.failing_since = None
        if not state.paused:
            state.shown = document(self._before, reading)
        self._before = reading
