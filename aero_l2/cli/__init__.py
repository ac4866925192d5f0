"""The command line: `aero-l2 serve`, and what prepares it."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from aero_l2 import __version__
from aero_l2.cli import token
from aero_l2.cli.serve import serve
from aero_l2.cli.settings import settings

app = typer.Typer(
    name="aero-l2",
    help="A LAN with DHCP, DNS and NAT for virtual machines in browser tabs, over a WebSocket.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serve)
app.command()(settings)
app.add_typer(token.app, name="token")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"aero-l2 {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the console script."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C before the start is an end, not a traceback
    app()
