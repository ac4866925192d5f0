"""Environment → `Settings`, or every fault at once."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aero_l2.config import unsupported
from aero_l2.config.forwards import MAX_FORWARDS
from aero_l2.config.settings import VARIABLES, Settings, Variable
from aero_l2.config.values import BadValue
from aero_l2.errors import ConfigError

_PREFIX = "AERO_L2_"
_KNOWN = frozenset(name for variable in VARIABLES for name in variable.names) | unsupported.NAMES


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and lines for the log about variables nobody reads."""

    settings: Settings
    warnings: tuple[str, ...]


def load(environment: Mapping[str, str]) -> Loaded:
    """Read the settings out of `environment` (usually os.environ).

    Values are trimmed and blank means unset, the port lists excepted.

    Raises:
        ConfigError: one line for each fault, naming variable, value and fix.
    """
    fields: dict[str, Any] = {}
    faults = unsupported.refusals(environment)
    for variable in VARIABLES:
        name, value = _effective(variable, environment)
        try:
            fields[variable.field] = variable.parse(value)
        except BadValue as fault:
            faults.append(f"{name}={value!r} {fault}: {fault.fix}")
    faults += _too_many_forwards(fields)
    if not (fields["open"] and fields["insecure_allow_no_auth"]):
        faults.append(_no_auth_pair(environment))
    if faults:
        raise ConfigError(faults)
    return Loaded(Settings(**fields), tuple(_unknown(environment)))


def _too_many_forwards(fields: Mapping[str, Any]) -> list[str]:
    """Both protocols share the limit, so neither variable can be judged by itself."""
    given = len(fields.get("tcp_forward", ())) + len(fields.get("udp_forward", ()))
    if given <= MAX_FORWARDS:
        return []
    return [
        f"AERO_L2_TCP_FORWARD and AERO_L2_UDP_FORWARD have {given} entries: keep to {MAX_FORWARDS} together"
    ]


def _effective(variable: Variable, environment: Mapping[str, str]) -> tuple[str, str]:
    """The variable that counts, and its value or the default."""
    for name in variable.names:
        value = environment.get(name, "").strip()
        if value and not (variable.zero_is_unset and value.strip("0") == ""):
            return name, value
    return variable.name, variable.default


def _no_auth_pair(environment: Mapping[str, str]) -> str:
    pair = ("AERO_L2_OPEN", "AERO_L2_INSECURE_ALLOW_NO_AUTH")
    shown = " ".join(f"{name}={environment.get(name, '')!r}" for name in pair)
    return (
        f"{shown} leaves no way to let anyone in: this version has no authentication, so set both to exactly "
        "1 and listen where only you can connect (AERO_L2_PROXY_LISTEN_ADDR=127.0.0.1:8090)"
    )


def _unknown(environment: Mapping[str, str]) -> list[str]:
    lines = []
    for name in sorted(environment):
        if name.startswith(_PREFIX) and name not in _KNOWN:
            near = difflib.get_close_matches(name, _KNOWN, n=1)
            hint = f", did you mean {near[0]}?" if near else ""
            lines.append(f"{name} is not a setting{hint}")
    return lines
