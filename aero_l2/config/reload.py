"""New settings for a process that goes on: what changed, and what of it may."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from aero_l2.auth.keys import Keys
from aero_l2.config.names import PREVIOUS
from aero_l2.config.settings import Settings
from aero_l2.config.variable import Variable
from aero_l2.config.variables import VARIABLES

# Those that fill a field of `Settings` of their own.
_VARIABLES: Final = tuple(variable for variable in VARIABLES if variable.field in Settings.__slots__)


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of the variables whose values differ, for the log; never the values.

    A setting with several names goes by its main one; origins of `…_EXTRA` by the list they are added to.
    """

    applied: tuple[str, ...]
    needs_restart: tuple[str, ...]


def changes(old: Settings, new: Settings) -> Changes:
    """What differs, divided by whether `merge` takes it over."""
    differing = [variable for variable in _VARIABLES if _differs(variable, old, new)]
    return Changes(
        applied=tuple(name for v in differing if v.reloadable for name in _parts(v, old, new)),
        needs_restart=tuple(name for v in differing if not v.reloadable for name in _parts(v, old, new)),
    )


def merge(old: Settings, new: Settings) -> Settings:
    """`old` with what may change of `new`.

    All that decides who may come in is taken over together: no combination arises that `load` did not judge.
    """
    fields = {variable.field: getattr(new, variable.field) for variable in _VARIABLES if variable.reloadable}
    return replace(old, **fields)


def _differs(variable: Variable, old: Settings, new: Settings) -> bool:
    return bool(getattr(old, variable.field) != getattr(new, variable.field))


def _parts(variable: Variable, old: Settings, new: Settings) -> Iterator[str]:
    """The variable's name, of a secret those of its halves that differ."""
    before, after = getattr(old, variable.field), getattr(new, variable.field)
    if not isinstance(before, Keys):
        yield variable.name
        return
    if before.current != after.current:
        yield variable.name
    if before.previous != after.previous:
        yield variable.name + PREVIOUS
