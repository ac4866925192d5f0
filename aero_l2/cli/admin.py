"""`aero-l2 admin`: one request to a running server's admin socket."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Final

import typer

from aero_l2.admin.client import AdminClient, NoAnswer
from aero_l2.admin.protocol import COMMANDS, BadRequest, parse
from aero_l2.cli.errors import complain
from aero_l2.cli.reach import fail
from aero_l2.config.sources import gather
from aero_l2.errors import ConfigError

VARIABLE: Final = "AERO_L2_ADMIN_SOCKET"
USUAL_PATH: Final = "/run/aero-l2/admin.sock"
"""Where the socket is looked for if nobody names one."""
EXIT_REFUSED: Final = 1
_USAGES: Final = ", ".join(command.usage for command in COMMANDS)

Words = Annotated[
    list[str], typer.Argument(metavar="COMMAND…", help=f"One of: {_USAGES}.", show_default=False)
]
SocketPath = Annotated[
    str | None,
    typer.Option("--socket", metavar="PATH", help=f"Instead of {VARIABLE}; {USUAL_PATH} without either."),
]
Config = Annotated[str | None, typer.Option(metavar="FILE", help="The server's TOML file, if it has one.")]
Timeout = Annotated[float, typer.Option(metavar="SECONDS", min=0.1, max=3600, help="For the answer.")]


def admin(words: Words, socket: SocketPath = None, config: Config = None, timeout: Timeout = 10) -> None:
    """Ask a running server, or have it do something, by its admin socket; prints the answer as JSON.

    Exit status 0: done. 1: the server refuses, or cannot be asked, and stderr says why. 2: no such command.
    """
    request = " ".join(words)
    try:
        parse(request.encode("ascii", "replace"))
    except BadRequest as fault:
        fail(f"{fault} (commands: {_USAGES})")
    client = AdminClient(socket_path(socket, config) or USUAL_PATH, timeout)
    try:
        answer = client.ask(request)
    except NoAnswer as fault:
        complain(str(fault))
        raise typer.Exit(EXIT_REFUSED) from None
    finally:
        client.close()
    if not answer["ok"]:
        complain(str(answer.get("error")))
        raise typer.Exit(EXIT_REFUSED)
    typer.echo(json.dumps(answer, indent=2 if sys.stdout.isatty() else None))


def socket_path(given: str | None, config: str | None) -> str | None:
    """The path: of the option, else as the server would find it; None where nobody names one."""
    return (given or "").strip() or setting(VARIABLE, config)


def setting(name: str, config: str | None) -> str | None:
    """A setting of the server, as its environment or its file has it; None where it is not set."""
    try:
        sources = gather(os.environ, config)
    except ConfigError as error:
        fail("; ".join(error.faults))
    return next((one.value for one in sources.given(name) if one.value), None)
