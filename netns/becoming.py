"""What a fresh process does before it is netd: its name, its log, its signals, its limits."""

import resource
import signal

from netns import lines
from netns.lineshape import Level, Style
from netns.syscalls import Prctl, prctl, set_process_name


def become_netd(level: Level, style: Style) -> None:
    """Nobody may look into it, a terminal's signals are not for it, and it may open what the host allows."""
    set_process_name("aero-l2-netd")
    prctl(Prctl.SET_DUMPABLE, 0)
    lines.configure("netd", level, style)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
