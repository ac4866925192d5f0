"""What a fresh process does before it is netd: its name, its log, its signals, its limits, what it sees."""

import os
import resource
import signal
from typing import Final

from netns import lines
from netns.lineshape import Level, Style
from netns.syscalls import Mount, Namespace, Prctl, mount, prctl, set_process_name, unshare

_HIDDEN: Final = ("/run/user", "/run/dbus")


def become_netd(level: Level, style: Style) -> None:
    """Nobody may look into it, a terminal's signals are not for it, and it may open what the host allows."""
    set_process_name("aero-l2-netd")
    prctl(Prctl.SET_DUMPABLE, 0)
    lines.configure("netd", level, style)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def hide(socket: str) -> None:
    """Hide what NAT processes could ask for more, from this process and all that it starts, and nobody else.

    They run as the service user, and slirp4netns shows /run and /etc of whoever starts it to itself. That
    user's own D-Bus would start any program for them, and the admin socket would let them in. What is not
    there, or cannot be reached from here, is hidden already.

    In a mount namespace of its own, for where the supervisor is the socket could not be removed any more
    (EBUSY, unlink(2)). Before there is a second thread. Raises OSError.

    Args:
        socket: path of the admin socket; empty for none.
    """
    unshare(Namespace.MOUNT)
    for folder in _HIDDEN:
        if os.path.isdir(folder):
            flags = Mount.READ_ONLY | Mount.NOSUID | Mount.NOEXEC
            mount("aero-l2", folder, "tmpfs", flags, "mode=0755,size=4k")
    if socket and os.path.lexists(socket):
        mount(os.devnull, socket, "", Mount.BIND)
