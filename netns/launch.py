"""The supervisor: gives up privileges, makes the user and mount namespaces, starts netd and the server.

It stays, does nothing else, and parses no stranger's byte. Started by root it first becomes the service
user; from there the way is the same for everyone. It passes SIGTERM and SIGINT on to the server as SIGTERM
and SIGHUP as it is, starts a new netd when one dies, and ends with the server's exit status. See
user_namespaces(7) and capabilities(7).
"""

import argparse
import contextlib
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from netns import users
from netns.errors import LaunchError
from netns.syscalls import Capability, Prctl, drop_bounding_set, prctl, set_capabilities, set_process_name
from netns.userns import enter_user_namespace, give_up_capabilities

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
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""Each ends the server in good order."""
SIGNALS = (*STOP_SIGNALS, signal.SIGHUP)
"""What is passed on to the server, which starts with them blocked and unblocks them when it can."""
_SERVER_PREFIX = "LC_"
_SERVER_VARIABLES = frozenset(("LANG", "TZ", "TERM", "NO_COLOR", "FORCE_COLOR"))
_RESTART_DELAYS_S = (0.05, 0.2, 1.0, 2.0)
_STABLE_S = 30.0
_NETD_END_S = 4.0


class Supervisor:
    """Two children and what to do when one ends."""

    def __init__(self, server_command: Sequence[str], netd_command: Sequence[str], settings_fd: int) -> None:
        self._server_command = server_command
        self._settings_fd = settings_fd
        self._had_terminal = _has_terminal()
        self._netd_command = netd_command
        self._control, self._server_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._server = 0
        self._netd = 0
        self._netd_started = 0.0
        self._netd_due: float | None = None
        self._failures = 0
        self._wake, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    def run(self) -> int:
        """Start both, serve until the server ends, return its exit status (128 + n for signal n)."""
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: self._signal_server(signal.SIGTERM))
        signal.signal(signal.SIGHUP, lambda *_: self._hang_up())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._start_netd()
        self._server = self._start_server()
        self._server_control.close()
        os.close(self._settings_fd)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # blocked by `main`: none is lost
        while True:
            status = self._reap()
            if status is not None:
                return self._end(status)
            if self._netd_due is not None and self._netd_due <= time.monotonic():
                self._start_netd()
            timeout = None if self._netd_due is None else max(0.0, self._netd_due - time.monotonic())
            select.select([self._wake], [], [], timeout)
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)

    def _hang_up(self) -> None:
        """SIGHUP asks for a reload, unless it means what it once meant: the terminal is gone."""
        gone = self._had_terminal and not _has_terminal()
        self._signal_server(signal.SIGTERM if gone else signal.SIGHUP)

    def _signal_server(self, number: signal.Signals) -> None:
        if self._server:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._server, number)

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
                socket.send_fds(self._control, [b"netd"], [ours.fileno()])

    def _start_server(self) -> int:
        control, settings = self._server_control.fileno(), self._settings_fd
        told = {CONTROL_FD_VARIABLE: str(control), SETTINGS_FD_VARIABLE: str(settings)}
        return _spawn(self._server_command, {**_known_variables(), **told}, (control, settings), ())

    def _reap(self) -> int | None:
        """Collect every child that ended, a dead netd's NAT processes too; the server's status, if it did."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return None
            if pid == 0:
                return None
            if pid == self._server:
                self._server = 0
                return os.waitstatus_to_exitcode(status)
            if pid == self._netd:
                self._netd_ended(os.waitstatus_to_exitcode(status))

    def _netd_ended(self, status: int) -> None:
        self._netd = 0
        if time.monotonic() - self._netd_started > _STABLE_S:
            self._failures = 0
        delay = _RESTART_DELAYS_S[min(self._failures, len(_RESTART_DELAYS_S) - 1)]
        self._failures += 1
        self._netd_due = time.monotonic() + delay
        if status:  # 0: the server let go of it, by ending too or by saying so in its log
            _say(f"netd ended ({_ending(status)}); open tunnels live on, a new one starts in {delay:g} s")

    def _end(self, status: int) -> int:
        """The server ended: netd sees that too and ends by itself, within a bounded time."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if status < 0:
            _say(f"the server ended ({_ending(status)}); every tunnel is gone")
        self._control.close()
        until = time.monotonic() + _NETD_END_S
        while self._netd and time.monotonic() < until:
            pid, _ = os.waitpid(self._netd, os.WNOHANG)
            if pid:
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
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        for fd in descriptors:
            os.set_inheritable(fd, True)
        if not capabilities:
            give_up_capabilities()
        os.execve(command[0], list(command), environment)
    except OSError as error:
        _say(f"cannot start {command[0]}: {error}")
    os._exit(127)


def _has_terminal() -> bool:
    """Whether there is a controlling terminal (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def _close_inherited(but: int) -> None:
    """Whatever else the caller left open must not reach the process that parses strangers' bytes."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != but:
            with contextlib.suppress(OSError):  # the one that listed them
                os.close(int(name))


def enter_namespaces() -> None:
    """Become root of a new user namespace that maps only this user, with four capabilities and no more.

    Raises LaunchError with the sysctl or setting to change.
    """
    uid = os.geteuid()
    try:
        enter_user_namespace(0, 0)
        drop_bounding_set(NETD_CAPABILITIES)
        set_capabilities(NETD_CAPABILITIES)
        prctl(Prctl.SET_NO_NEW_PRIVS, 1)
        prctl(Prctl.SET_CHILD_SUBREAPER, 1)
    except OSError as error:
        raise LaunchError(
            f"cannot make a user namespace as uid {uid}: {error}; check the sysctls "
            "user.max_user_namespaces, kernel.unprivileged_userns_clone and "
            "kernel.apparmor_restrict_unprivileged_userns, and in a container its seccomp profile"
        ) from error


def _ending(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"


def _say(text: str) -> None:
    print(f"aero-l2: {text}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of ``python -m netns.launch OPTIONS -- SERVER COMMAND``. Exit status 2: cannot start."""
    parser = argparse.ArgumentParser(prog="netns.launch")
    parser.add_argument("--user")
    parser.add_argument("--driver", required=True)
    parser.add_argument("--search-path", required=True)
    parser.add_argument("--settings-fd", type=int, required=True)
    parser.add_argument("server", nargs="+")
    options = parser.parse_args(arguments)
    set_process_name("aero-l2")
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold secrets and guests' data
    _close_inherited(but=options.settings_fd)
    os.set_inheritable(options.settings_fd, False)
    try:
        if os.geteuid() == 0:
            users.become_service_user(options.user or users.DEFAULT_USER)
        elif options.user:
            users.check_user_setting(options.user)
        users.check_code_is_readable()
        enter_namespaces()
    except LaunchError as error:
        _say(str(error))
        sys.exit(2)
    netd = [sys.executable, "-I", "-m", "netns.netd"]
    netd += ["--driver", options.driver, "--search-path", options.search_path]
    supervisor = Supervisor(options.server, netd, options.settings_fd)
    prctl(Prctl.SET_DUMPABLE, 0)
    sys.exit(supervisor.run())


if __name__ == "__main__":
    main()
