"""`aero-l2 serve`: read and judge the settings, then become the supervisor, or only show them (`--check`)."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, NoReturn

import typer

from aero_l2.app import launching
from aero_l2.cli.errors import EXIT_USAGE, complain
from aero_l2.config import Loaded, Settings, Sources, gather, load
from aero_l2.config.effective import lines
from aero_l2.errors import ConfigError

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


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
    environment = launching.environment_of(os.environ)
    options = ["--ready-stdout"] if ready_stdout else []
    launch, _ = launching.command(sources, settings, launching.search_path(environment), options)
    if sys.stdout is not None:  # closed by whoever started us
        sys.stdout.flush()
    # The supervisor unblocks them once it can pass them on, so that none is lost in between.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    os.execve(sys.executable, launch, environment)
