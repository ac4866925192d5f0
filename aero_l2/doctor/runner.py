"""Runs checks side by side, each in a process of its own that may become another user, or hang.

A check that has not ended by its deadline is killed, and that is what was found; one that cannot even be
killed (waiting for a dead disk) is not waited for. The caller must have a single thread: it forks.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn

from aero_l2.doctor.finding import Finding, note, problem
from aero_l2.doctor.subject import Subject
from netns.errors import LaunchError, NetnsError

DEADLINE_S: Final = 10.0
_LATE_S: Final = 2
"""So long after its deadline a check whose caller is gone ends by itself."""
_REAP_S: Final = 0.5
_AT_A_TIME: Final = 65_536
_DONE: Final = b"done"
"""The last line of a check."""


@dataclass(frozen=True, slots=True)
class Check:
    """name: of what it looks at, for one that fails as a whole. run: may raise NetnsError, OSError."""

    name: str
    run: Callable[[Subject], Iterable[Finding]]
    deadline_s: float = DEADLINE_S


@dataclass(slots=True)
class _Running:
    check: Check
    pid: int
    pipe: int
    until: float
    said: bytes = b""
    ended: bool = False
    is_done: bool = False
    findings: list[Finding] = field(default_factory=list)

    def take(self, data: bytes) -> None:
        """What it says; nothing is its end, and one that has not said so has not looked at everything."""
        *lines, self.said = (self.said + data).split(b"\n")
        self.findings += [Finding.from_json(line.decode()) for line in lines if line != _DONE]
        self.is_done = self.is_done or _DONE in lines
        if not data:
            self.ended = True
            if not self.is_done:
                self.findings.append(problem(self.check.name, "it ended before all was looked at"))


def examine(checks: Sequence[Check], subject: Subject) -> Iterator[Finding]:
    """All findings, in the order of the checks, each as soon as those before it are there."""
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        running: list[_Running] = []
        for check in checks:
            one = _start(check, subject, [other.pipe for other in running])
            running.append(one)
            if not one.ended:
                stack.callback(_end, one)
                selector.register(one.pipe, selectors.EVENT_READ, one)
        for one in running:
            while not one.ended:
                _turn(selector, running)
            yield from one.findings


def _turn(selector: selectors.BaseSelector, running: Sequence[_Running]) -> None:
    """Take what checks have said, and give up those whose time is over."""
    waiting = [one for one in running if not one.ended]
    for key, _ in selector.select(max(0.0, min(one.until for one in waiting) - time.monotonic())):
        one: _Running = key.data
        data = os.read(one.pipe, _AT_A_TIME)
        one.take(data)
        if one.ended:
            selector.unregister(one.pipe)
    for one in waiting:
        if not one.ended and one.until <= time.monotonic():
            selector.unregister(one.pipe)
            one.ended = True
            one.findings.append(
                problem(one.check.name, f"no result within {one.check.deadline_s:g} s, given up")
            )


def _start(check: Check, subject: Subject, pipes: Iterable[int]) -> _Running:
    read, write = os.pipe()
    try:
        pid = os.fork()
    except OSError as error:
        os.close(read)
        os.close(write)
        text = f"no process can be started to look at it: {error.strerror}"
        fix = subject.place.limit("TasksMax=infinity", "ulimit -u unlimited")
        return _Running(check, 0, -1, 0.0, ended=True, findings=[problem(check.name, text, *fix)])
    if pid == 0:
        for descriptor in (read, *pipes):
            if descriptor >= 0:
                os.close(descriptor)
        _work(check, subject, write)
    os.close(write)
    return _Running(check, pid, read, time.monotonic() + check.deadline_s)


def _work(check: Check, subject: Subject, pipe: int) -> NoReturn:
    """In the new process: every finding is a line in the pipe; nothing reaches the terminal."""
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.alarm(int(check.deadline_s) + _LATE_S)
        with os.fdopen(pipe, "wb") as out:
            for finding in _run(check, subject):
                out.write(finding.to_json().encode() + b"\n")
                out.flush()
            out.write(_DONE + b"\n")
    finally:
        os._exit(0)


def _say_nothing() -> None:
    """Libraries that print have nowhere to. Raises OSError."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)


def _run(check: Check, subject: Subject) -> Iterator[Finding]:
    try:
        _say_nothing()
        yield from check.run(subject)
    except LaunchError:  # of becoming the service user, which has a check of its own
        yield note(check.name, "not tried: it needs the service user")
    except NetnsError as error:
        yield problem(check.name, str(error))
    except OSError as error:
        yield problem(check.name, f"cannot be looked at: {error}")
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        yield problem(check.name, f"the check itself failed, which is a fault of aero-l2: {what}")


def _end(one: _Running) -> None:
    """Leave nothing of it: whatever it started is in its process group."""
    for kill, of in ((os.killpg, one.pid), (os.kill, one.pid)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(of, signal.SIGKILL)
    os.close(one.pipe)
    until = time.monotonic() + _REAP_S
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(one.pid, os.WNOHANG)[0] == 0 and time.monotonic() < until:
            time.sleep(0.005)
