"""Settings of the server that is measured: judged before anything is built, shown without secrets."""

from __future__ import annotations

from collections.abc import Mapping

from support.proxy import SERVICE_USER

from aero_l2.config import load
from aero_l2.config.given import on_one_line
from aero_l2.config.names import KNOWN, PATHS, SECRETS, hint, toml_key
from aero_l2.errors import ConfigError

OPEN = {"AERO_L2_OPEN": "1", "AERO_L2_INSECURE_ALLOW_NO_AUTH": "1", "AERO_L2_USER": SERVICE_USER}
"""What support.proxy starts from."""
QUIET = {"AERO_L2_LOG_LEVEL": "warning", "AERO_L2_MAX_CONNECTIONS": "0"}


def fault(given: Mapping[str, str]) -> str | None:
    """Why a server cannot have these, in one line."""
    for name in given:
        if name not in KNOWN:
            return f"{on_one_line(name)} is not a setting{hint(toml_key(name), as_key=False)}"
    try:
        load({**OPEN, **QUIET, **given})
    except ConfigError as error:
        return "; ".join(error.faults)
    return None


def public(given: Mapping[str, str]) -> dict[str, str]:
    """For documents and tables."""
    return {name: "***" if name in (*SECRETS, *PATHS) else value for name, value in given.items()}
