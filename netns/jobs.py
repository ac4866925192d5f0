"""Namespace work beside netd's event loop: jobs of the workshop's threads, and what follows each."""

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TypeVar

from netns.namespace import Workshop

_T = TypeVar("_T")


class Jobs:
    """Runs jobs on a `Workshop`; what follows a job runs on the loop's thread, in `run_finished`."""

    def __init__(self) -> None:
        self._workshop = Workshop()
        self._finished: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """Readable while a job has ended whose follow-up has not run."""
        return self._wake

    def make(
        self, job: Callable[[], _T], then: Callable[[Future[_T]], None], begun: Callable[[], None]
    ) -> Future[_T]:
        """Run ``job`` in a fresh namespace (`Workshop.submit`), then ``then`` with its future."""
        return self._followed(self._workshop.submit(job, begun), then)

    def inside(self, netns: int, job: Callable[[], _T], then: Callable[[Future[_T]], None]) -> Future[_T]:
        """Run ``job`` in the namespace behind ``netns`` (`Workshop.submit_inside`), then ``then``."""
        return self._followed(self._workshop.submit_inside(netns, job), then)

    def run_finished(self) -> None:
        """Run what follows the jobs that have ended."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        with contextlib.suppress(Empty):
            while True:
                self._finished.get_nowait()()

    def _followed(self, future: Future[_T], then: Callable[[Future[_T]], None]) -> Future[_T]:
        def finish(done: Future[_T]) -> None:
            self._finished.put(lambda: then(done))
            os.eventfd_write(self._wake, 1)

        future.add_done_callback(finish)
        return future
