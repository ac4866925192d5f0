"""The supervisor: gives up privileges, makes the user and mount namespaces, starts netd and the server.

It stays, does nothing else, and parses no stranger's byte. Started by root it first becomes the service
user; from there the way is the same for everyone. It passes SIGTERM and SIGINT on to the server as SIGTERM
and SIGHUP as it is, starts a new netd when one dies, tells systemd how the service is, and ends with the
server's exit status. See user_namespaces(7) and capabilities(7).
"""

import argparse
import contextlib
import os
import resource
import signal
import sys
from collections.abc import Collection, Sequence
from typing import NoReturn

from netns import activation, adminsocket, lines, refusal, users
from netns.errors import LaunchError
from netns.notify import Notifier, watchdog_interval_s
from netns.supervisor import LISTEN_FDS_VARIABLE, NETD_CAPABILITIES, SIGNALS, Supervisor
from netns.syscalls import Prctl, drop_bounding_set, prctl, set_capabilities, set_process_name
from netns.userns import enter_user_namespace


def _close_inherited(but: Collection[int]) -> None:
    """Whatever else the caller left open must not reach the process that parses strangers' bytes."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in but:
            with contextlib.suppress(OSError):  # the one that listed them
                os.close(int(name))


def enter_namespaces() -> None:
    """Become root of a new user namespace that maps only this user, with four capabilities and no more.

    Raises LaunchError with the sysctl, profile or setting to change.
    """
    uid = os.geteuid()
    try:
        enter_user_namespace(0, 0)
        drop_bounding_set(NETD_CAPABILITIES)
        set_capabilities(NETD_CAPABILITIES)
        prctl(Prctl.SET_NO_NEW_PRIVS, 1)
        prctl(Prctl.SET_CHILD_SUBREAPER, 1)
        set_capabilities(NETD_CAPABILITIES, effective=False)  # netd has them by being root, with its exec
    except OSError as error:
        raise LaunchError(
            f"cannot make a user namespace as uid {uid}: {error.strerror}; {refusal.explain(error)}"
        ) from error


def _cannot_tell_systemd(why: str) -> None:
    lines.log("warning", "systemd not told", text=why)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of ``python -m netns.launch OPTIONS -- SERVER COMMAND``. Exit status 2: cannot start."""
    parser = argparse.ArgumentParser(prog="netns.launch")
    parser.add_argument("--user")
    parser.add_argument("--driver", required=True)
    parser.add_argument("--search-path", required=True)
    parser.add_argument("--max-tcp-memory", default="0", help="in bytes, see netns.tcpmemory")
    parser.add_argument("--admin-socket", default="", help="path, see netns.adminsocket")
    parser.add_argument("--folder", action="append", default=[], help="which the server writes to")
    parser.add_argument("--settings-fd", type=int, required=True)
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--log-format", default="auto")
    parser.add_argument("server", nargs="+")
    options = parser.parse_args(arguments)
    set_process_name("aero-l2")
    style = lines.style_of(options.log_format, os.environ)
    lines.configure("launch", options.log_level, style)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold secrets and guests' data
    admin: adminsocket.AdminSocket | None = None
    try:
        sockets = activation.handed_over(os.environ, os.getpid())
        _close_inherited(but=(options.settings_fd, *sockets))
        for descriptor in (options.settings_fd, *sockets):
            os.set_inheritable(descriptor, False)
        notifier = Notifier(os.environ.get("NOTIFY_SOCKET", ""), _cannot_tell_systemd)
        user = users.find_user(options.user or users.DEFAULT_USER) if os.geteuid() == 0 else None
        if user is None and options.user:
            users.check_user_setting(options.user)
        if options.admin_socket:
            admin = adminsocket.make(options.admin_socket, user)
        if user is not None:
            users.become_service_user(user, options.folder)
        users.check_code_is_readable()
        enter_namespaces()
    except LaunchError as error:
        if admin is not None:
            admin.remove()
        print(f"aero-l2: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    netd = [sys.executable, "-I", "-m", "netns.netd"]
    netd += ["--driver", options.driver, "--search-path", options.search_path]
    netd += ["--max-tcp-memory", options.max_tcp_memory, "--hide", options.admin_socket]
    netd += ["--log-level", options.log_level, "--log-style", style]
    watchdog_s = watchdog_interval_s(os.environ, os.getpid())
    handed_on = {LISTEN_FDS_VARIABLE: sockets, adminsocket.FDS_VARIABLE: admin.descriptors if admin else ()}
    supervisor = Supervisor(options.server, netd, options.settings_fd, handed_on, notifier, watchdog_s)
    prctl(Prctl.SET_DUMPABLE, 0)
    try:
        status = supervisor.run()
    finally:
        if admin is not None:
            admin.remove()
    sys.exit(status)


if __name__ == "__main__":
    main()
