"""How the commands end when something is wrong."""

from __future__ import annotations

import os
from typing import Final

import typer

EXIT_UNWRITTEN: Final = 1
EXIT_USAGE: Final = 2


def complain(*lines: str) -> None:
    """One line for people on stderr each."""
    for line in lines:
        typer.echo(f"aero-l2: {line}", err=True)


def unwritten(error: OSError) -> None:
    """Say that standard output cannot be written, unless nobody reads it any more; it leads nowhere then."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if not isinstance(error, BrokenPipeError):
        complain(f"standard output: {error.strerror}")
