"""The supervisor's loop: two children, netd and the server, and what to do when one ends."""

import contextlib
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence

from netns import control
from netns.lines import log
from netns.notify import Notifier
from netns.report import Report
from netns.stopping import StopSignals
from netns.syscalls import Capability, set_capabilities
from netns.userns import give_up_capabilities

NETD_CAPABILITIES = (
    Capability.SETPCAP,
    Capability.NET_BIND_SERVICE,
    Capability.NET_ADMIN,
    Capability.SYS_ADMIN,
)
CONTROL_FD_VARIABLE = "AERO_L2_CONTROL_FD"
"""Tells the server the socket on which each netd's socket reaches it."""
SETTINGS_FD_VARIABLE = "AERO_L2_SETTINGS_FD"
"""Tells the server the file with its settings: secrets are in no process's environment."""
LISTEN_FDS_VARIABLE = "AERO_L2_LISTEN_FDS"
"""Tells the server the listening sockets that are there already, with commas between."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""Each ends the server in good order."""
SIGNALS = (*STOP_SIGNALS, signal.SIGHUP)
"""What is passed on to the server, which starts with them blocked and unblocks them when it can."""
_SERVER_PREFIX = "LC_"
_SERVER_VARIABLES = frozenset(("LANG", "TZ", "TERM", "NO_COLOR", "FORCE_COLOR", "container"))
_RESTART_DELAYS_S = (0.05, 0.2, 1.0, 2.0)
_STABLE_S = 30.0
_NETD_END_S = 4.0
_END_NOW_S = 5.0
_NEVER = float("inf")
_SAYINGS_PER_TURN = 16


class Supervisor:
    """Two children, what to do when one ends, and what systemd is told meanwhile.

    ``handed_on``: by variable, descriptors that the server gets; it alone holds the listening ones then.
    """

    def __init__(
        self,
        server_command: Sequence[str],
        netd_command: Sequence[str],
        settings_fd: int,
        handed_on: Mapping[str, Sequence[int]],
        notifier: Notifier,
        watchdog_s: float | None,
    ) -> None:
        self._server_command = server_command
        self._settings_fd = settings_fd
        self._handed_on = handed_on
        self._notifier = notifier
        self._report = Report(watchdog_s)
        self._had_terminal = _has_terminal()
        self._netd_command = netd_command
        self._control, self._server_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._server = 0
        self._stopping = False
        self._stop_signals = StopSignals()
        self._kill_due: float | None = None
        self._gone_due = _NEVER
        self._arrived: deque[int] = deque()
        self._netd = 0
        self._netd_started = 0.0
        self._netd_due: float | None = None
        self._failures = 0
        self._wake, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    def run(self) -> int:
        """Start both, serve until the server ends, return its exit status (128 + n for signal n)."""
        for number in SIGNALS:
            signal.signal(number, lambda number, _: self._arrived.append(number))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._start_netd()
        self._server = self._start_server()
        self._server_control.close()
        for descriptor in (self._settings_fd, *self._handed_on.get(LISTEN_FDS_VARIABLE, ())):
            os.close(descriptor)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # blocked by `main`: none is lost
        while True:
            status = self._reap()
            if status is not None:
                return self._end(status)
            self._do_what_is_due(time.monotonic())
            self._wait()

    def _do_what_is_due(self, now: float) -> None:
        while self._arrived:
            number = self._arrived.popleft()
            if number == signal.SIGHUP:
                self._hang_up()
            elif self._stop_signals.counts(number, now):
                self._stop_or_insist(now)
        if self._netd_due is not None and self._netd_due <= now:
            self._start_netd()
        if self._report.question_due is not None and self._report.question_due <= now:
            self._report.asked()
            self._tell_server(control.WELL)
        if self._kill_due is not None and self._kill_due <= now:
            self._kill_due = None
            log("error", "server killed", waited_s=_END_NOW_S)
            self._signal_server(signal.SIGKILL)

    def _wait(self) -> None:
        """Until a signal, a child's end, a word of the server, or something is due."""
        times = (self._netd_due, self._report.question_due, self._kill_due, self._gone_due)
        due = min(at for at in times if at is not None)
        timeout = max(0.0, due - time.monotonic()) if due < _NEVER else None
        watched = [self._wake, self._control.fileno()] if self._gone_due == _NEVER else [self._wake]
        readable, _, _ = select.select(watched, [], [], timeout)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)
        if self._control.fileno() in readable:
            self._listen()

    def _listen(self) -> None:
        """What the server says, a few sayings at a time: it cannot keep us from anything else."""
        for _ in range(_SAYINGS_PER_TURN):
            try:
                saying = self._control.recv(control.LONGEST, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                saying = b""
            if not saying:
                self._gone_due = time.monotonic() + _END_NOW_S  # it is going; `_reap` will tell
                return
            if assignments := self._report.said(saying, time.monotonic()):
                self._notifier.tell(*assignments)

    def _stop_or_insist(self, now: float) -> None:
        """The first signal is the server's to follow in good order; after the second it is soon gone."""
        if not self._stopping:
            self._stop()
        elif self._kill_due is None:
            self._kill_due = now + _END_NOW_S
            self._tell_server(control.END_NOW)

    def _stop(self) -> None:
        self._stopping = True
        self._notifier.tell("STOPPING=1")
        self._signal_server(signal.SIGTERM)

    def _hang_up(self) -> None:
        """SIGHUP asks for a reload, unless it means what it once meant: the terminal is gone."""
        if self._had_terminal and not _has_terminal():
            self._stop()
        else:
            self._signal_server(signal.SIGHUP)

    def _signal_server(self, number: signal.Signals) -> None:
        if self._server:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._server, number)

    def _tell_server(self, saying: bytes) -> None:
        with contextlib.suppress(OSError):  # it is going, or reads nothing any more
            self._control.send(saying, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def _start_netd(self) -> None:
        """A new netd; the server gets its socket over the control socket."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            command = [*self._netd_command, "--socket-fd", str(theirs.fileno())]
            self._netd = _spawn(command, {}, (theirs.fileno(),), NETD_CAPABILITIES)
            self._netd_started, self._netd_due = time.monotonic(), None
            with contextlib.suppress(OSError):  # the server is going; `_reap` will tell
                socket.send_fds(self._control, [control.NETD], [ours.fileno()])

    def _start_server(self) -> int:
        control_fd, settings = self._server_control.fileno(), self._settings_fd
        told = {CONTROL_FD_VARIABLE: str(control_fd), SETTINGS_FD_VARIABLE: str(settings)}
        told |= {name: ",".join(map(str, given)) for name, given in self._handed_on.items() if given}
        passed_on = (control_fd, settings, *(fd for given in self._handed_on.values() for fd in given))
        return _spawn(self._server_command, {**_known_variables(), **told}, passed_on, ())

    def _reap(self) -> int | None:
        """Collect every child that ended, a dead netd's NAT processes too; the server's status, if it did."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return None
            if pid == 0:
                return self._held_up()
            if pid == self._server:
                self._server = 0
                return os.waitstatus_to_exitcode(status)
            if pid == self._netd:
                self._netd_ended(os.waitstatus_to_exitcode(status))

    def _held_up(self) -> int | None:
        """The status of a server that has said its last word, and whose end the kernel holds up."""
        if time.monotonic() < self._gone_due:
            return None
        log("error", "server held up by a disk")
        self._signal_server(signal.SIGKILL)
        return 0 if self._stopping else 1

    def _netd_ended(self, status: int) -> None:
        self._netd = 0
        if time.monotonic() - self._netd_started > _STABLE_S:
            self._failures = 0
        delay = _RESTART_DELAYS_S[min(self._failures, len(_RESTART_DELAYS_S) - 1)]
        self._failures += 1
        self._netd_due = time.monotonic() + delay
        if status:  # 0: the server let go of it, by ending too or by saying so in its log
            log("error", "netd ended", **_ending(status), restart_in_s=delay)

    def _end(self, status: int) -> int:
        """The server ended: netd sees that too and ends by itself, within a bounded time."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if status < 0:
            log("error", "server ended", **_ending(status))
        self._control.close()
        until = time.monotonic() + _NETD_END_S
        while self._netd and time.monotonic() < until:
            if os.waitpid(self._netd, os.WNOHANG)[0]:
                self._netd = 0
            else:
                time.sleep(0.01)
        if self._netd:
            os.kill(self._netd, signal.SIGKILL)
            os.waitpid(self._netd, 0)
        return status if status >= 0 else 128 - status


def _known_variables() -> dict[str, str]:
    """What of the environment is meant for the server; the starter's other secrets are not."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_SERVER_PREFIX) or name in _SERVER_VARIABLES
    }


def _spawn(
    command: Sequence[str],
    environment: dict[str, str],
    descriptors: Sequence[int],
    capabilities: Sequence[Capability],
) -> int:
    """Start a child in a session of its own, so that a terminal's Ctrl-C is the supervisor's alone."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (*SIGNALS, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        if capabilities:
            os.dup2(0, 1)  # only the server has something to say on stdout
            for number in STOP_SIGNALS:  # netd and the NATs go with the server, whoever else is told to end
                signal.signal(number, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        for fd in descriptors:
            os.set_inheritable(fd, True)
        if not capabilities:
            set_capabilities(NETD_CAPABILITIES)  # it takes one to give up the bounding set
            give_up_capabilities()
        os.execve(command[0], list(command), environment)
    except OSError as error:
        log("error", "program not started", program=command[0], text=str(error))
    os._exit(127)


def _has_terminal() -> bool:
    """Whether there is a controlling terminal (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def _ending(status: int) -> dict[str, object]:
    return {"signal": signal.Signals(-status).name} if status < 0 else {"status": status}
