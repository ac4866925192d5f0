"""The NAT processes that netd started: readiness, deadlines, reaping."""

import contextlib
import os
import selectors
import signal
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Child:
    """A NAT process to reap; killed if it is not ready by ``deadline`` (monotonic seconds)."""

    pid: int
    pidfd: int
    ready: int
    deadline: float | None
    on_ready: Callable[[], None]


class Children:
    """Watches processes through the event loop's selector, whose keys carry a handler without arguments."""

    def __init__(self, selector: selectors.BaseSelector, log: Callable[[str], None]) -> None:
        self._selector = selector
        self._log = log
        self._children: dict[int, Child] = {}

    def __len__(self) -> int:
        return len(self._children)

    def watch(self, pid: int, ready: int, deadline: float, on_ready: Callable[[], None]) -> int:
        """Reap ``pid`` when it ends, kill it unless it writes to ``ready`` (owned from now on) in time.

        ``on_ready`` is called once it has. Returns its pidfd, which stays owned here.
        """
        child = Child(pid, os.pidfd_open(pid), ready, deadline, on_ready)
        self._children[pid] = child
        self._selector.register(child.pidfd, selectors.EVENT_READ, lambda: self._reap(child))
        self._selector.register(ready, selectors.EVENT_READ, lambda: self._became_ready(child))
        return child.pidfd

    def next_timeout(self, now: float) -> float | None:
        """Seconds until the next deadline, None without one."""
        deadlines = [child.deadline for child in self._children.values() if child.deadline is not None]
        return max(0.0, min(deadlines) - now) if deadlines else None

    def kill_overdue(self, now: float) -> None:
        """Kill what has passed its deadline."""
        for child in self._children.values():
            if child.deadline is not None and child.deadline <= now:
                self._log(f"NAT process {child.pid} was not ready in time and is killed")
                self._kill(child)

    def kill_all(self) -> None:
        """Kill what is left."""
        for child in self._children.values():
            self._kill(child)

    def _became_ready(self, child: Child) -> None:
        """It has its TAP, or it died, which its pidfd tells too."""
        if os.read(child.ready, 1):
            child.deadline = None
            child.on_ready()
        self._drop_ready(child)

    def _drop_ready(self, child: Child) -> None:
        if child.ready >= 0:
            self._selector.unregister(child.ready)
            os.close(child.ready)
            child.ready = -1

    def _reap(self, child: Child) -> None:
        os.waitpid(child.pid, 0)
        self._drop_ready(child)
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        del self._children[child.pid]

    @staticmethod
    def _kill(child: Child) -> None:
        child.deadline = None
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
