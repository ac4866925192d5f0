"""Names of settings: which are ours, what they are called in a TOML file, what a misspelt one meant."""

from __future__ import annotations

import difflib
from typing import Final

from aero_l2.config import unused
from aero_l2.config.variable import PREFIX, Variable
from aero_l2.config.variables import VARIABLES

FILE: Final = "_FILE"
PREVIOUS: Final = "_PREVIOUS"
_INTERNAL: Final = frozenset((f"{PREFIX}CONTROL_FD", f"{PREFIX}SETTINGS_FD"))


def _variables_by_name() -> dict[str, Variable]:
    return {name: variable for variable in VARIABLES for name in variable.names}


def _secret_names() -> tuple[str, ...]:
    """Each with its rotation, in order."""
    names = [name for variable in VARIABLES if variable.secret for name in variable.names]
    return tuple(name + suffix for name in names for suffix in ("", PREVIOUS))


BY_NAME: Final = _variables_by_name()
SECRETS: Final = _secret_names()
PATHS: Final = tuple(name + FILE for name in SECRETS)
"""Variables that name a secret's file."""
KNOWN: Final = frozenset((*BY_NAME, *SECRETS, *PATHS, *unused.NAMES))


def is_ours(name: str) -> bool:
    """Whether a variable of the environment is meant for this program, known or not."""
    return name in KNOWN or (name.startswith(PREFIX) and name not in _INTERNAL)


def toml_key(name: str) -> str:
    """What `name` is called in a TOML file."""
    return name.removeprefix(PREFIX).lower()


def _names_by_key() -> dict[str, str]:
    """Where SESSION_SECRET and AERO_L2_SESSION_SECRET come to the same key, it is the latter's."""
    ordered = sorted(KNOWN, key=lambda name: (name.startswith(PREFIX), name))
    return {toml_key(name): name for name in ordered}


BY_KEY: Final = _names_by_key()


_SUGGESTED: Final = sorted(set(BY_KEY) - {"open", "insecure_allow_no_auth"})
"""Nobody is led to turn a check off by a slip of the keyboard."""
_NEAR: Final = 0.77
"""Least similarity (difflib): `listen_addr` is near `proxy_listen_addr`, `secret` not near `jwt_secret`."""


_OTHER_WORDS: Final = {
    "denied_domains": "blocked_domains",
    "blocked_cidrs": "denied_cidrs",
    **dict.fromkeys(("dns", "dns_server", "dns_upstream", "dns_upstreams", "dns_resolvers"), "dns_servers"),
}
"""What others call it, or our own other settings would."""


def hint(key: str, *, as_key: bool) -> str:
    """`, did you mean …?` where the key of a setting is near `key`, else where all of them are listed.

    Args:
        key: what somebody wrote, as `toml_key` makes it.
        as_key: whether it was in a TOML file.
    """
    near = [_OTHER_WORDS[key]] if key in _OTHER_WORDS else []
    near = near or _with_all_words(key)
    near = near or difflib.get_close_matches(key, _SUGGESTED, n=1, cutoff=_NEAR)
    if not near:
        return ": `aero-l2 settings` lists all there are"
    return f", did you mean {near[0] if as_key else BY_KEY[near[0]]}?"


def _with_all_words(key: str) -> list[str]:
    """The key with the fewest words besides those of `key`, if that has several: somebody left one out."""
    words = set(key.split("_"))
    longer = [one for one in _SUGGESTED if words <= set(one.split("_"))] if len(words) > 1 else []
    return sorted(longer, key=lambda one: (len(one.split("_")), one))[:1]
