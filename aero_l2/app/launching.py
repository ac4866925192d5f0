"""The supervisor's command line and environment: what `serve` becomes, and what `doctor` tries."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from aero_l2.config import Settings, Sources, handover
from aero_l2.quota.tcpmemory import share_of_guests

DRIVER: Final = "slirp.slirp4netns:Slirp4netns"
SERVER: Final = "aero_l2.app"
_SYSTEM_PATHS: Final = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
# What the supervisor and its children may need of ours. Settings go by a file in memory.
_PASSED_ON: Final = frozenset(("PATH", "LANG", "TZ", "TERM", "NO_COLOR", "FORCE_COLOR", "container"))
# systemd's words to the process it started, for the supervisor alone: sd_notify(3), sd_listen_fds(3).
OF_SYSTEMD: Final = frozenset(
    ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
)
_LOCALE: Final = "LC_"


def environment_of(environment: Mapping[str, str]) -> dict[str, str]:
    """What the supervisor gets of ours."""
    names = _PASSED_ON | OF_SYSTEMD
    return {name: value for name, value in environment.items() if name in names or name.startswith(_LOCALE)}


def search_path(environment: Mapping[str, str]) -> str:
    """PATH, then where Debian keeps nft and slirp4netns, which an ordinary user's PATH leaves out."""
    given = environment.get("PATH", "").split(":")
    absolute = [folder for folder in given if folder.startswith("/")]
    return ":".join(dict.fromkeys([*absolute, *_SYSTEM_PATHS]))


def command(
    sources: Sources, settings: Settings, path: str, options: Sequence[str] = (), server: str = SERVER
) -> tuple[list[str], int]:
    """The supervisor's command line with the module `server` in the server's place, and its `options`.

    The descriptor, inheritable, of the settings that it names is the caller's.
    """
    descriptor = handover.write(sources)
    launch = [sys.executable, "-I", "-m", "netns.launch", "--driver", DRIVER, "--search-path", path]
    launch += ["--max-tcp-memory", str(settings.max_tcp_memory or share_of_guests())]
    launch += ["--log-level", settings.log_level, "--log-format", settings.log_format]
    launch += ["--user", settings.user] if settings.user else []
    if server == SERVER:  # these would be made
        launch += ["--admin-socket", settings.admin_socket] if settings.admin_socket else []
        launch += ["--folder", os.path.abspath(settings.capture_dir)] if settings.capture_dir else []
    launch += ["--settings-fd", str(descriptor), "--", sys.executable, "-I", "-m", server, *options]
    return launch, descriptor
