"""A value as somebody wrote it down, and how to speak of it to them."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from aero_l2.config.names import toml_key


class Place(enum.Enum):
    """A kind of source, strongest first."""

    COMMAND_LINE = "command line"
    ENVIRONMENT = "environment"
    FILE = "file"


def on_one_line(text: str) -> str:
    """A name or path as it is, or quoted where it would break a line."""
    return text if text.isprintable() else repr(text)


@dataclass(frozen=True, slots=True, repr=False)
class Given:
    """A value somebody wrote; `label` and `where` are how to speak of it to them."""

    name: str
    value: str
    place: Place
    label: str
    where: str = ""

    @property
    def subject(self) -> str:
        """The setting as it was written down, without its value."""
        return self.label + self.where

    def called(self, name: str) -> str:
        """What another variable is called where this one was written down."""
        return toml_key(name) if self.place is Place.FILE else name

    def fault(self, problem: str, fix: str, *, secret: bool = False) -> str:
        """One line: variable, value, problem, fix."""
        return f"{self.assignment(secret=secret)} {problem}: {fix}"

    def assignment(self, *, secret: bool = False) -> str:
        """The setting as it was written down, value and all."""
        shown = "…" if secret and self.value else repr(self.value)
        return f"{self.label}={shown}{self.where}"
