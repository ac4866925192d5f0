"""The NAT processes of netd, its own and those of an earlier one: readiness, deadlines, ends."""

import contextlib
import errno
import os
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from netns import vitals
from netns.lines import log


@dataclass(slots=True, eq=False)
class Child:
    """A NAT process; killed if it has not done by ``deadline`` (monotonic seconds) what ``late`` says.

    ``ours``: it is netd's child and has to be reaped; that of an earlier netd is the supervisor's.
    ``pidfd`` is -1 once it ended. ``tunnel``: whose NAT it is.
    """

    pid: int
    pidfd: int
    ours: bool = True
    ready: int = -1
    deadline: float | None = None
    late: str = ""
    on_ready: Callable[[], None] = field(default=lambda: None)
    tunnel: int = 0


class Children:
    """Watches processes through the event loop's selector, whose keys carry a handler without arguments.

    ``overdue``: told of each that is about to be killed.
    """

    def __init__(self, selector: selectors.BaseSelector, overdue: Callable[[Child], None]) -> None:
        self._selector = selector
        self._overdue = overdue
        self._children: set[Child] = set()

    def __len__(self) -> int:
        return len(self._children)

    def watch(
        self, pid: int, ready: int, deadline: float, on_ready: Callable[[], None], tunnel: int = 0
    ) -> Child:
        """Reap ``pid`` when it ends, kill it unless it writes to ``ready`` (owned from now on) in time.

        ``on_ready`` is called once it has. The pidfd of what is returned stays owned here.
        """
        child = Child(
            pid, os.pidfd_open(pid), True, ready, deadline, "it was not ready in time", on_ready, tunnel
        )
        self._add(child)
        self._selector.register(ready, selectors.EVENT_READ, lambda: self._became_ready(child))
        return child

    def adopt(self, pidfd: int, parent: int, tunnel: int = 0) -> Child | None:
        """Watch the process of an earlier netd, which its end left to ``parent``; None if it ended too.

        Raises OSError for what is no such process.
        """
        pid = vitals.pid_of(pidfd)
        if pid is None:
            return None
        if pid == os.getpid() or vitals.parent_of(pid) != parent:
            raise OSError(errno.ESRCH, f"process {pid} is no NAT process")
        child = Child(pid, os.dup(pidfd), ours=False, tunnel=tunnel)
        self._add(child)
        return child

    def forget(self, child: Child | None) -> None:
        """Watch one of an earlier netd no more."""
        if child is not None and child.pidfd >= 0:
            self._drop(child)

    def expect_end(self, child: Child, within_s: float, late: str) -> None:
        """Kill it unless it has ended in so many seconds, saying ``late``; an earlier deadline stays."""
        deadline = time.monotonic() + within_s
        if child.pidfd >= 0:
            self._drop_ready(child)
            if child.deadline is None or deadline < child.deadline:
                child.deadline, child.late = deadline, late

    def next_timeout(self, now: float) -> float | None:
        """Seconds until the next deadline, None without one."""
        deadlines = [child.deadline for child in self._children if child.deadline is not None]
        return max(0.0, min(deadlines) - now) if deadlines else None

    def kill_overdue(self, now: float) -> None:
        """Kill what has passed its deadline."""
        for child in self._children:
            if child.deadline is not None and child.deadline <= now:
                self._overdue(child)
                self._kill(child)

    def kill_all(self) -> None:
        """Kill what is left."""
        for child in self._children:
            self._kill(child)

    def _add(self, child: Child) -> None:
        self._children.add(child)
        self._selector.register(child.pidfd, selectors.EVENT_READ, lambda: self._ended(child))

    def _became_ready(self, child: Child) -> None:
        """It has its TAP, or it died, which its pidfd tells too."""
        if child.ready >= 0 and os.read(child.ready, 1):
            child.deadline = None
            child.on_ready()
        self._drop_ready(child)

    def _drop_ready(self, child: Child) -> None:
        if child.ready >= 0:
            self._selector.unregister(child.ready)
            os.close(child.ready)
            child.ready = -1

    def _ended(self, child: Child) -> None:
        if child.ours:
            os.waitpid(child.pid, 0)
        self._drop(child)

    def _drop(self, child: Child) -> None:
        self._drop_ready(child)
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        child.pidfd = -1
        self._children.remove(child)

    @staticmethod
    def _kill(child: Child) -> None:
        child.deadline = None
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)


def tell_overdue(child: Child) -> None:
    """The line that says which NAT process is killed, and why."""
    log("error", "NAT process killed", session=child.tunnel, pid=child.pid, text=child.late)
