"""What a fresh process does before it is netd: its name, its log, its signals, its limits, what it sees."""

import os
import resource
import signal

from netns import lines
from netns.lineshape import Level, Style
from netns.syscalls import Mount, Namespace, Prctl, mount, prctl, set_process_name, unshare


def become_netd(level: Level, style: Style) -> None:
    """Nobody may look into it, a terminal's signals are not for it, and it may open what the host allows."""
    set_process_name("aero-l2-netd")
    prctl(Prctl.SET_DUMPABLE, 0)
    lines.configure("netd", level, style)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def hide(path: str) -> None:
    """Put nothing in the place of a file, for this process and all that it starts, and for nobody else.

    The admin socket lets the service user in, which a NAT process is, too; and slirp4netns shows /run and
    /etc of whoever starts it to itself. What is not there, or cannot be reached from here, is hidden already.
    In a mount namespace of its own, for where the supervisor is the socket could not be removed any more
    (EBUSY, unlink(2)). Before there is a second thread. Raises OSError.
    """
    unshare(Namespace.MOUNT)
    try:
        mount(os.devnull, path, "", Mount.BIND)
    except OSError:
        if os.path.lexists(path):
            raise
