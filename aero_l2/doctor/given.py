"""Settings as `serve` would take them; where it would not, a stand-in, to examine the host with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from aero_l2.config import Loaded, Sources, gather, load
from aero_l2.config.names import KNOWN
from aero_l2.doctor.finding import Finding, note, ok, problem
from aero_l2.errors import ConfigError

CHECK: Final = "settings"
_OPEN: Final = {"AERO_L2_OPEN": "1", "AERO_L2_INSECURE_ALLOW_NO_AUTH": "1"}
_ACCESS: Final = ("AUTH", "SECRET", "API_KEY", "TOKEN", "JWT", "OPEN", "INSECURE")


@dataclass(frozen=True, slots=True)
class Judged:
    """Settings to examine the host with, what they were made of, and what there is to say of those given."""

    sources: Sources
    loaded: Loaded
    findings: tuple[Finding, ...]


def judge(environment: Mapping[str, str], config: str | None, bind: str | None) -> Judged:
    """Read everything that `serve` would read. Never raises ConfigError."""
    try:
        sources = gather(environment, config, bind)
        loaded = load(sources)
    except ConfigError as error:
        sources, loaded = _stand_in(environment, bind)
        return Judged(sources, loaded, tuple(_faults(error, environment, config)))
    count = len(loaded.given)
    said = f"{count} given, the others have their defaults"
    warnings = tuple(note(CHECK, warning) for warning in loaded.warnings)
    return Judged(sources, loaded, (ok(CHECK, said, given=count), *warnings))


def _faults(error: ConfigError, environment: Mapping[str, str], config: str | None) -> Iterator[Finding]:
    if config is None and not any(name in KNOWN for name in environment):
        yield note(
            CHECK,
            "none are given: the host is examined with the defaults, and serve will want to know who may "
            "connect (AERO_L2_AUTH_MODE); give those of your service, as its file or environment",
            "aero-l2 doctor --config /etc/aero-l2/config.toml",
        )
        return
    for fault in error.faults:
        yield problem(CHECK, fault, "aero-l2 settings  # lists all of them")


def _stand_in(environment: Mapping[str, str], bind: str | None) -> tuple[Sources, Loaded]:
    """As many of the environment's variables as can be used together, open to everybody."""
    usable = dict(_OPEN)
    sources = gather(usable)
    loaded = load(sources)
    for name, value in environment.items():
        if name not in KNOWN or any(word in name for word in _ACCESS):
            continue
        tried = gather({**usable, name: value})
        try:
            loaded = load(tried)
        except ConfigError:
            continue
        usable[name], sources = value, tried
    if bind is not None:
        bound = gather(usable, None, bind)
        try:
            return bound, load(bound)
        except ConfigError:
            pass
    return sources, replace(loaded, warnings=())
