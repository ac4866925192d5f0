"""`aero-l2 settings`: the reference of all settings, which docs/settings.md has too."""

from __future__ import annotations

from typing import Annotated

import typer

from aero_l2.config import reference


def settings(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="As tables in Markdown, the way docs/settings.md has them.")
    ] = False,
) -> None:
    """Print every setting: its names, default, unit, range and meaning."""
    typer.echo(reference.markdown() if markdown else reference.text(), nl=False)
