"""Options that say how to reach a server: the same for every command that is a client."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from aero_l2.cli.errors import EXIT_USAGE, complain
from aero_l2.client import Credential, Delivery, InvalidTarget, Options, Target
from aero_l2.client.address import NO_ORIGIN
from aero_l2.client.errors import printable
from aero_l2.client.opening import tls_context

TOKEN: Final = "AERO_L2_CLIENT_TOKEN"
TOKEN_FILE: Final = "AERO_L2_CLIENT_TOKEN_FILE"
MAX_TOKEN_BYTES: Final = 65_536

Url = Annotated[
    str, typer.Argument(metavar="URL", help="The server: ws://HOST:PORT/l2, wss://…; without a path, /l2.")
]
Token = Annotated[
    str | None,
    typer.Option(
        metavar="SECRET",
        help=f"API key, JWT or session token. Other users of this machine can read it: {TOKEN} and "
        "--token-file keep it from them.",
    ),
]
TokenFile = Annotated[
    str | None, typer.Option(metavar="FILE", help=f"A file with it, - for standard input; also {TOKEN_FILE}.")
]
Deliver = Annotated[Delivery, typer.Option(help="How it travels; query if it cannot be a subprotocol.")]
Origin = Annotated[
    str | None,
    typer.Option(metavar="ORIGIN", help="The Origin to send, none if empty; default: the server's own."),
]
CaFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Certificates (PEM) to trust instead of the system's.")
]
OpenTimeout = Annotated[
    float,
    typer.Option("--open-timeout", metavar="SECONDS", min=0.1, max=3600, help="For opening the tunnel."),
]


@dataclass(frozen=True, slots=True)
class Reach:
    """Where the server is, and how a tunnel to it is opened."""

    target: Target
    options: Options


def reach(
    url: str,
    token: str | None,
    token_file: str | None,
    deliver: Delivery,
    origin: str | None,
    ca_file: Path | None,
    open_timeout_s: float,
) -> Reach:
    """What the options come to; ends the program with one line where they cannot be used."""
    if not math.isfinite(open_timeout_s):
        fail("--open-timeout is a number of seconds")
    secret = _secret(token, token_file)
    credential = None if secret is None else Credential(secret, deliver)
    given = NO_ORIGIN if origin is not None and not origin.strip() else origin
    try:
        target = Target.of(url, credential, given)
        if target.is_tls:
            tls_context(ca_file)  # where it cannot be used, now is the time to say so
    except InvalidTarget as fault:
        fail(str(fault))
    if ca_file is not None and not target.is_tls:
        fail("--ca-file is for wss:// addresses: nothing is encrypted on the way to this one")
    return Reach(
        target, Options(credential=credential, origin=given, ca_file=ca_file, open_timeout_s=open_timeout_s)
    )


def _secret(token: str | None, token_file: str | None) -> str | None:
    """The secret, from the option, the file, or the environment, in this order; None where there is none."""
    if token is not None and token_file is not None:
        fail("--token and --token-file are both given: leave one out")
    if token is not None:
        return _whole(token, "--token")
    if token_file is not None:
        return _read(token_file, "--token-file")
    named, path = os.environ.get(TOKEN, "").strip(), os.environ.get(TOKEN_FILE, "").strip()
    if named and path:
        fail(f"{TOKEN} and {TOKEN_FILE} are both set: unset one")
    if named:
        return named
    return _read(path, TOKEN_FILE) if path else None


def _read(path: str, source: str) -> str:
    named = f"{source}={printable(path)}"
    try:
        if path == "-":
            if sys.stdin is None:
                fail(f"{named}: standard input is closed: give the credential there, or name a file")
            content = sys.stdin.buffer.read(MAX_TOKEN_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                content = file.read(MAX_TOKEN_BYTES + 1)
        if len(content) > MAX_TOKEN_BYTES:
            fail(f"{named} has more than {MAX_TOKEN_BYTES} bytes: name a file with the credential alone")
        return _whole(content.decode(), named)
    except OSError as error:
        fail(f"{named}: {error.strerror}: name a file that can be read")
    except UnicodeDecodeError:
        fail(f"{named} is not text: name a file with the credential alone")


def _whole(text: str, source: str) -> str:
    secret = text.strip()
    if not secret:
        fail(f"{source} is empty: give the credential, or leave it out where the server asks for none")
    return secret


def fail(text: str) -> NoReturn:
    """End with one line and the status of a usage error."""
    complain(text)
    raise typer.Exit(EXIT_USAGE)
