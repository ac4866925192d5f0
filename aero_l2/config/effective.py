"""What `serve --check` prints: every setting in force, and who gave it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from aero_l2.config.given import Given, Place
from aero_l2.config.load import Loaded
from aero_l2.config.show import shown
from aero_l2.config.variable import Variable
from aero_l2.config.variables import VARIABLES

DEFAULT: Final = "default"
UNSET: Final = "(unset)"
NONE: Final = "(none)"
_VALUE_WIDTH: Final = 22


def lines(loaded: Loaded) -> Iterator[str]:
    """One line for each setting: variable, value with secrets masked, origin."""
    width = max(len(variable.name) for variable in VARIABLES)
    for variable in VARIABLES:
        if variable.field != "allowed_origins_extra":  # shown with those they are added to
            nothing = NONE if variable.blank_is_empty else UNSET
            value = shown(getattr(loaded.settings, variable.field)) or nothing
            origin = _origin(variable, loaded)
            yield f"{variable.name:<{width}}  {value:<{_VALUE_WIDTH}}  {origin}"


def _origin(variable: Variable, loaded: Loaded) -> str:
    given = loaded.given.get(variable.field)
    match variable.field:
        case "auth_mode" if given is None:
            return "not set, chosen by the secrets"
        case "allowed_origins":
            extra = loaded.given.get("allowed_origins_extra")
            return " and ".join(_place(one) for one in (given, extra) if one) or DEFAULT
        case "denied_tcp_ports" if given is None and "allowed_tcp_ports" in loaded.given:
            return "not set, nothing denied by AERO_L2_ALLOWED_TCP_PORTS being set"
        case "trust_proxy" if given is None and loaded.settings.trust_proxy:
            return "not set, turned on by AERO_L2_TRUSTED_PROXIES"
    return DEFAULT if given is None else _place(given)


def _place(given: Given) -> str:
    return given.place.value if given.place is Place.COMMAND_LINE else f"{given.place.value}: {given.subject}"
