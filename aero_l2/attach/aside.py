"""A display on a thread of its own: a terminal that takes nothing (Ctrl-S, a dead ssh) holds up no frame."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Final, Self

from aero_l2.attach.rates import View
from aero_l2.attach.show import Display, Value

WAITING: Final = 64
GRACE_S: Final = 1.0


class Aside:
    """Passes on to ``display`` what it is told, and forgets what that has no time for."""

    def __init__(self, display: Display, grace_s: float = GRACE_S) -> None:
        self._display = display
        self._grace_s = grace_s
        self._told: queue.Queue[Callable[[], None] | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._tell, name="display", daemon=True)

    @property
    def is_stuck(self) -> bool:
        """Whether it was left while the display took nothing; the interpreter cannot end in order then."""
        return self._thread.is_alive()

    def __enter__(self) -> Self:
        self._display.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(queue.Full):
            self._told.put(None, timeout=self._grace_s)
        self._thread.join(self._grace_s)
        if not self.is_stuck:
            self._display.__exit__()

    def change(self, event: str, **facts: Value) -> None:
        """As `Display.change`."""
        self._pass_on(lambda: self._display.change(event, **facts))

    def look(self, view: View) -> None:
        """As `Display.look`."""
        self._pass_on(lambda: self._display.look(view))

    def _pass_on(self, tell: Callable[[], None]) -> None:
        with contextlib.suppress(queue.Full):
            self._told.put_nowait(tell)

    def _tell(self) -> None:
        while (tell := self._told.get()) is not None:
            with contextlib.suppress(OSError):  # whoever looked is gone
                tell()
