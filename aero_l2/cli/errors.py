"""How the commands end when something is wrong."""

from __future__ import annotations

from typing import Final

import typer

EXIT_USAGE: Final = 2


def complain(*lines: str) -> None:
    """One line for people on stderr each."""
    for line in lines:
        typer.echo(f"aero-l2: {line}", err=True)
