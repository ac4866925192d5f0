"""What one setting is: its names, its default, how to read it, how careful to be with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from aero_l2.config import values
from aero_l2.config.values import Number

NO_LIMIT: Final = "no limit"
THE_DEFAULT: Final = "the default"
PREFIX: Final = "AERO_L2_"

Kind = Literal["number", "yes or no", "exactly 1", "text"]


@dataclass(frozen=True, slots=True)
class Variable:
    """One setting: the field it fills, its variables (the first not blank counts), how to read it.

    `default` is text as one would write it. Numbers are parsed by a `Number`, which knows their range.
    """

    field: str
    name: str
    default: str
    parse: Callable[[str], Any]
    help: str
    unit: str = ""
    ahead: tuple[str, ...] = ()
    """Variables that count before `name`."""
    behind: tuple[str, ...] = ()
    """Variables that count where `name` is unset."""
    deprecated: tuple[str, ...] = ()
    """Former names: they count last, and using one is a warning."""
    secret: bool = False
    """Never shown; also read from files, and rotated (`aero_l2.config.secrets`)."""
    reloadable: bool = False
    """SIGHUP may change it."""
    listed: bool = False
    """Several values with commas between them, or a TOML array."""
    blank_is_empty: bool = False
    """A port list: blank is a list of none instead of unset, and a TOML array of it may hold numbers."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every variable, in order of precedence."""
        return (*self.ahead, self.name, *self.behind, *self.deprecated)

    @property
    def number(self) -> Number | None:
        """The range where the setting is a number."""
        return self.parse if isinstance(self.parse, Number) else None

    @property
    def unit_help(self) -> str:
        """What to say of the unit to who wrote a value that does not parse."""
        return " (bytes: 10 MB = 10000000)" if self.unit.startswith("bytes") else ""

    @property
    def zero_is_unset(self) -> bool:
        """Whether 0 means the default too."""
        return self.number is not None and self.number.zero == THE_DEFAULT

    @property
    def kind(self) -> Kind:
        """What a typed file has to hold for it."""
        if self.number is not None:
            return "number"
        if self.parse is values.boolean:
            return "yes or no"
        return "exactly 1" if self.parse is values.exactly_one else "text"


@dataclass(frozen=True, slots=True)
class Theme:
    """Settings that belong together, under one heading."""

    title: str
    variables: tuple[Variable, ...]
