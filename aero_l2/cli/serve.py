"""`aero-l2 serve`: read and judge the settings, then become the supervisor, or only show them (`--check`)."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Annotated, NoReturn

import typer

from aero_l2.cli.errors import EXIT_USAGE, complain
from aero_l2.config import Loaded, Settings, Sources, gather, handover, load
from aero_l2.config.effective import lines
from aero_l2.errors import ConfigError
from aero_l2.quota.tcpmemory import share_of_guests

DRIVER = "slirp.slirp4netns:Slirp4netns"
_SYSTEM_PATHS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# What the supervisor and its children may need of ours. Settings go by a file in memory.
_PASSED_ON = frozenset(("PATH", "LANG", "TZ", "TERM", "NO_COLOR", "FORCE_COLOR"))
# systemd's words to the process it started, for the supervisor alone: sd_notify(3), sd_listen_fds(3).
_OF_SYSTEMD = frozenset(
    ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
)
_LOCALE = "LC_"


def serve(
    bind: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where to listen, instead of AERO_L2_PROXY_LISTEN_ADDR."),
    ] = None,
    ready_stdout: Annotated[
        bool,
        typer.Option(
            "--ready-stdout",
            help="Print AERO_L2_PROXY_READY and the URL on stdout once tunnels are accepted.",
        ),
    ] = False,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="A TOML file of settings; variables of the environment win over it."
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Only judge the settings and print those in force, secrets masked. Whether the host has "
            "what is needed is not looked at.",
        ),
    ] = False,
) -> None:
    """Run the proxy.

    Settings come from environment variables, a TOML file and files of secrets: `aero-l2 settings` lists them.

    Exit status 2: it cannot start, and one line per fault on stderr says why.
    """
    _open_standard_streams()
    try:
        sources = gather(os.environ, config, bind)
        loaded = load(sources)
    except ConfigError as error:
        complain(*error.faults)
        raise typer.Exit(EXIT_USAGE) from None
    if check:
        _show(loaded)
    else:
        _become_supervisor(sources, loaded.settings, ready_stdout=ready_stdout)


def _show(loaded: Loaded) -> None:
    complain(*(f"warning: {warning}" for warning in loaded.warnings))
    for line in lines(loaded):
        typer.echo(line)


def _open_standard_streams() -> None:
    """Open /dev/null for standard streams that are closed, else the next file would become one of them."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
            os.set_inheritable(descriptor, True)


def _become_supervisor(sources: Sources, settings: Settings, *, ready_stdout: bool) -> NoReturn:
    """Replace this process by the supervisor, which needs none of what was imported here."""
    environment = _passed_on(os.environ)
    server = [sys.executable, "-I", "-m", "aero_l2.app", *(["--ready-stdout"] if ready_stdout else [])]
    launch = [sys.executable, "-I", "-m", "netns.launch"]
    launch += ["--driver", DRIVER, "--search-path", _search_path(environment)]
    launch += ["--max-tcp-memory", str(settings.max_tcp_memory or share_of_guests())]
    launch += ["--log-level", settings.log_level, "--log-format", settings.log_format]
    launch += ["--user", settings.user] if settings.user else []
    launch += ["--admin-socket", settings.admin_socket] if settings.admin_socket else []
    launch += ["--folder", os.path.abspath(settings.capture_dir)] if settings.capture_dir else []
    launch += ["--settings-fd", str(handover.write(sources))]
    if sys.stdout is not None:  # closed by whoever started us
        sys.stdout.flush()
    # The supervisor unblocks them once it can pass them on, so that none is lost in between.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    os.execve(sys.executable, [*launch, "--", *server], environment)


def _passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    names = _PASSED_ON | _OF_SYSTEMD
    return {name: value for name, value in environment.items() if name in names or name.startswith(_LOCALE)}


def _search_path(environment: Mapping[str, str]) -> str:
    """PATH, then where Debian keeps nft and slirp4netns, which an ordinary user's PATH leaves out."""
    given = environment.get("PATH", "").split(":")
    absolute = [folder for folder in given if folder.startswith("/")]
    return ":".join(dict.fromkeys([*absolute, *_SYSTEM_PATHS]))
