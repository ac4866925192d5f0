"""`aero-l2 doctor`: whether this host can serve, and what to type where it cannot."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import time
from typing import Annotated, Final

import typer

from aero_l2.cli.errors import complain, unwritten
from aero_l2.doctor import report
from aero_l2.doctor.finding import Finding
from aero_l2.doctor.report import Style
from aero_l2.doctor.run import findings, prepare

EXIT_UNREAD: Final = 2
"""Standard output cannot be written: whether all is well is not known to anybody."""
EXIT_INTERRUPTED: Final = 130
_COLUMNS: Final = 80


def doctor(
    config: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="The TOML file of settings that serve is started with."),
    ] = None,
    bind: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where serve would listen, as its own --bind.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object (docs/doctor.schema.json) instead of lines.")
    ] = False,
) -> None:
    """Examine this host as the proxy would meet it, by really making and unmaking one session.

    Run it as serve is run: as the same user, with the same settings. Each line is ok, note (it works, and is
    limited) or problem, with what to type. Nothing is left behind, and a proxy that runs is not disturbed.

    Exit status 0: no problem, 1: at least one, 2: a fault in the command line, or no report was written.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _examine(config, bind, json=json)
    except KeyboardInterrupt:
        complain("interrupted")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _examine(config: str | None, bind: str | None, *, json: bool) -> None:
    began = time.monotonic()
    subject, found = prepare(os.environ, config, bind)
    style = _style()
    told: list[Finding] = []
    for finding in itertools.chain(found, findings(subject)):
        told.append(finding)
        if not json:
            for line in report.lines(finding, style):
                _print(line)
    if json:
        _print(report.as_json(told, subject.user, subject.place.container, time.monotonic() - began))
    else:
        _print(report.summary(told, subject.user))
    raise typer.Exit(report.status(told))


def _style() -> Style:
    """A terminal has a width, and shows colours unless NO_COLOR is set (no-color.org)."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    columns = shutil.get_terminal_size((_COLUMNS, 24)).columns if is_terminal else _COLUMNS
    dumb = os.environ.get("TERM", "") == "dumb"
    colour = bool(os.environ.get("FORCE_COLOR")) or (is_terminal and not dumb)
    return Style(columns, colour and not os.environ.get("NO_COLOR"))


def _print(line: str) -> None:
    try:
        typer.echo(line, color=True)
    except OSError as error:
        unwritten(error)
        raise typer.Exit(EXIT_UNREAD) from None
