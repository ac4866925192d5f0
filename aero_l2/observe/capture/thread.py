"""The one thread that writes captures: jobs one after the other, and in between what can wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

NAME: Final = "captures"
Job = Callable[[], None]


class WriterThread:
    """Runs jobs in the order in which they are posted, by whichever thread; none may raise.

    idle: called while there is no job, until it says that there is nothing to do. It is a daemon, for a disk
    that does not answer must not keep the process alive.
    """

    def __init__(self, idle: Callable[[], bool]) -> None:
        self._idle = idle
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=NAME, daemon=True)
        self._thread.start()

    def post(self, job: Job) -> None:
        """Have it run."""
        self._jobs.put(job)

    def end(self) -> None:
        """Let the thread end once it has done what was posted."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._next()) is not None:
            job()

    def _next(self) -> Job | None:
        while True:
            try:
                return self._jobs.get_nowait()
            except Empty:
                if not self._idle():
                    return self._jobs.get()
