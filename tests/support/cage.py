"""A run of which nothing is left, however it ends: SIGKILL, too.

watcher     the process that was started: passes signals on, ends as the run did
  first     process 1 of a PID namespace: when it or the watcher ends, the kernel ends all others in it
    run     where `enter` returns; in a session of its own, so that Ctrl-C reaches the watcher only
"""

import os
import select
import signal
import sys
from typing import Any, NoReturn

from netns.syscalls import Mount, Namespace, Prctl, mount, prctl, unshare
from support import scratch

_NEW_PIDS = Namespace(0x20000000)  # CLONE_NEWPID
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def enter(who: str) -> None:
    """Go on in such a run, with a folder for temporary files that goes with it. SIGINT, SIGTERM and SIGHUP
    (those that were not ignored) are a KeyboardInterrupt there, once; the second one ends it at once.

    Only while there is one thread. Raises SystemExit with ``who`` and what is wrong.
    """
    folder = scratch.make(who)
    passed = {one for one in _ENDING if signal.getsignal(one) is not signal.SIG_IGN}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {*passed, signal.SIGCHLD})
    sys.stdout.flush()
    life = os.pipe()
    try:
        unshare(_NEW_PIDS)
    except OSError as error:
        scratch.remove(folder)
        raise SystemExit(f"{who}: {error}: namespaces need root") from None
    if first := os.fork():
        os.close(life[0])
        code, asked = _tend(first, passed)
        scratch.remove(folder)
        _end(code, asked)
    os.close(life[1])
    _become_first(life[0], who)
    if run := os.fork():
        os._exit(_tend(run, passed)[0])
    for one in passed:
        signal.signal(one, _interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*passed, signal.SIGCHLD})


def _become_first(life: int, who: str) -> None:
    """End with the watcher, whose end closes ``life``; see the processes of the namespace in /proc."""
    prctl(Prctl.SET_PDEATHSIG, signal.SIGKILL)
    if select.select([life], [], [], 0)[0]:
        os._exit(1)  # it ended before
    os.close(life)
    os.setsid()
    try:
        unshare(Namespace.MOUNT)
        mount("none", "/", "", Mount.REC | Mount.SLAVE)
        mount("proc", "/proc", "proc", Mount.NOSUID | Mount.NOEXEC)
    except OSError as error:
        raise SystemExit(f"{who}: {error}") from None


def _tend(child: int, passed: set[signal.Signals]) -> tuple[int, signal.Signals | None]:
    """Pass signals on and reap until the child ends: its exit status as shells count it, and the first signal
    that came."""
    asked: signal.Signals | None = None
    while True:
        came = signal.Signals(signal.sigwait({*passed, signal.SIGCHLD}))
        if came != signal.SIGCHLD:
            os.kill(child, signal.SIGKILL if asked else came)
            asked = asked or came
        elif (status := _reap(child)) is not None:
            code = os.waitstatus_to_exitcode(status)
            return (code if code >= 0 else 128 - code), asked


def _reap(child: int) -> int | None:
    """Everything that has ended; the wait status of ``child`` if it is among that."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if not pid:
            return found
        found = status if pid == child else found


def _end(code: int, asked: signal.Signals | None) -> NoReturn:
    """As the run did: by the signal that ended it."""
    if asked is not None and code:
        signal.signal(asked, signal.SIG_DFL)
        os.kill(os.getpid(), asked)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {asked})
    sys.exit(code)


def _interrupt(number: int, _: Any) -> NoReturn:
    for one in _ENDING:
        signal.signal(one, lambda *_: None)  # what is being undone is undone to the end
    raise KeyboardInterrupt(signal.Signals(number).name)
