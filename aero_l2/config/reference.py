"""The reference of all settings, out of `THEMES`: for the terminal, and for docs/settings.md."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import Final

from aero_l2.config.names import FILE, PREVIOUS
from aero_l2.config.variable import Variable
from aero_l2.config.variables import THEMES

_WIDTH: Final = 100
_INDENT: Final = "    "
_HEAD: Final = (
    "| variable | default | unit | range | SIGHUP | meaning |",
    "|---|---|---|---|---|---|",
)


def markdown() -> str:
    """A heading and a table for each theme."""
    return "\n".join(_markdown_lines())


def text() -> str:
    """The same for reading in a terminal."""
    return "\n".join(_text_lines())


def row(variable: Variable) -> str:
    """One row of a table of `markdown`."""
    cells = (
        ", ".join(_names(variable)),
        f"`{variable.default}`" if variable.default else "",
        variable.unit,
        str(variable.number or ""),
        "re-read" if variable.reloadable else "",
        _meaning(variable),
    )
    return f"| {' | '.join(cells)} |"


def _names(variable: Variable) -> Iterator[str]:
    for name in variable.names:
        yield f"`{name}`" + (" (deprecated)" if name in variable.deprecated else "")


def _meaning(variable: Variable) -> str:
    if not variable.secret:
        return variable.help
    return f"{variable.help} Secret; also `{FILE}`, `{PREVIOUS}` and `{PREVIOUS}{FILE}` behind each name."


def _markdown_lines() -> Iterator[str]:
    for theme in THEMES:
        yield from (f"### {theme.title}", "", *_HEAD)
        yield from (row(variable) for variable in theme.variables)
        yield ""


def _text_lines() -> Iterator[str]:
    for theme in THEMES:
        yield from (theme.title, "")
        for variable in theme.variables:
            yield "  " + ", ".join(_names(variable)).replace("`", "")
            facts = [f"Default: {variable.default}." if variable.default else "No default."]
            facts += [f"Unit: {variable.unit}."] if variable.unit else []
            facts += [f"Range: {variable.number}."] if variable.number else []
            facts += ["SIGHUP re-reads it."] if variable.reloadable else []
            for paragraph in (_meaning(variable).replace("`", ""), " ".join(facts)):
                yield from wrap(
                    paragraph,
                    _WIDTH,
                    initial_indent=_INDENT,
                    subsequent_indent=_INDENT,
                    break_on_hyphens=False,
                )
            yield ""
