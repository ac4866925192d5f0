"""All commands of the program."""

from __future__ import annotations

import sys
from typing import Annotated, Final, NoReturn

import typer
from typer.exceptions import TyperException

from aero_l2 import __version__
from aero_l2.cli import policy, token
from aero_l2.cli.admin import admin
from aero_l2.cli.connect import connect
from aero_l2.cli.doctor import doctor
from aero_l2.cli.errors import EXIT_UNWRITTEN, EXIT_USAGE, complain, unwritten
from aero_l2.cli.probe import probe_
from aero_l2.cli.serve import serve
from aero_l2.cli.settings import settings
from aero_l2.cli.top import top

NAME: Final = "aero-l2"

app = typer.Typer(
    name=NAME,
    help="A LAN with DHCP, DNS and NAT for virtual machines in browser tabs, over a WebSocket.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serve)
app.command()(settings)
app.command()(connect)
app.command()(doctor)
app.command("probe")(probe_)
app.command()(top)
app.command()(admin)
app.add_typer(token.app, name="token")
app.add_typer(policy.app, name="policy")


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


def run() -> NoReturn:
    """Do what the command line says; faults in it are one line and status 2."""
    try:
        status = app(prog_name=NAME, standalone_mode=False)
    except TyperException as error:
        if message := " ".join(error.format_message().split()).removesuffix("."):
            message = message.replace(": Value error, ", ": ")
            context = getattr(error, "ctx", None)
            command = context.command_path if context is not None else NAME
            complain(f"{message[0].lower()}{message[1:]} (see {command} --help)")
        status = EXIT_USAGE
    except OSError:
        if not _loses_output():
            raise
        status = EXIT_UNWRITTEN
    if _loses_output():
        status = status or EXIT_UNWRITTEN
    sys.exit(status)


def _loses_output() -> bool:
    """Whether standard output cannot be written, which is said."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        unwritten(error)
        return True
    return False
