"""Findings as people and as programs read them. Pure; docs/doctor.md, docs/doctor.schema.json."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from aero_l2.doctor.finding import Finding, Status

SCHEMA_VERSION: Final = 1
EXIT_WELL: Final = 0
EXIT_PROBLEMS: Final = 1
_MARK: Final = 9
_CHECK: Final = 20
NARROW: Final = 64
"""In fewer columns the text stands below what was looked at."""
_LEAST: Final = 20
_COLOURS: Final[dict[Status, str]] = {"ok": "\033[32m", "note": "\033[33m", "problem": "\033[1;31m"}
_PLAIN: Final = "\033[0m"


@dataclass(frozen=True, slots=True)
class Style:
    """columns: of the terminal."""

    columns: int = 80
    colour: bool = False


def lines(finding: Finding, style: Style) -> Iterator[str]:
    """One finding. What is to be typed is never broken, so that it can be copied."""
    mark = f"{finding.status:{_MARK}}"
    if style.colour:
        mark = f"{_COLOURS[finding.status]}{finding.status}{_PLAIN}{' ' * (_MARK - len(finding.status))}"
    is_narrow = style.columns < NARROW
    indent = " " * (2 if is_narrow else _MARK + _CHECK)
    width = max(_LEAST, style.columns - len(indent))
    wrapped = textwrap.wrap(finding.text, width, break_long_words=False, break_on_hyphens=False) or [""]
    if is_narrow:
        yield f"{mark}{finding.check}"
    else:
        yield f"{mark}{finding.check:{_CHECK}}{wrapped.pop(0)}"
    yield from (indent + part for part in wrapped)
    lead = " " * (2 if is_narrow else _MARK)
    for number, fix in enumerate(finding.fix):
        yield f"{lead}{'type: ' if number == 0 else '      '}{fix}"


def summary(findings: Sequence[Finding], user: str) -> str:
    """The last line."""
    problems = sum(one.status == "problem" for one in findings)
    notes = sum(one.status == "note" for one in findings)
    noted = f", {notes} note{'s' * (notes != 1)}" if notes else ""
    if problems:
        return (
            f"{problems} problem{'s' * (problems != 1)}{noted}: aero-l2 cannot serve well here as user {user}"
        )
    return f"all well{noted}: aero-l2 can serve here as {user}"


def status(findings: Sequence[Finding]) -> int:
    """The exit status."""
    return EXIT_PROBLEMS if any(one.status == "problem" for one in findings) else EXIT_WELL


def as_json(findings: Sequence[Finding], user: str, container: str | None, seconds: float) -> str:
    """One object in one line."""
    return json.dumps(
        {
            "version": SCHEMA_VERSION,
            "ok": status(findings) == EXIT_WELL,
            "exit_status": status(findings),
            "user": user,
            "container": container,
            "seconds": round(seconds, 3),
            "checks": [one.as_fields() for one in findings],
        }
    )
