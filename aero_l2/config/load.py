"""Sources → `Settings`, or every fault at once. Pure, but for a mapping, whose files are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from aero_l2.config import rules, unused, values
from aero_l2.config.given import Given, Place, on_one_line
from aero_l2.config.names import KNOWN, hint, toml_key
from aero_l2.config.secrets import SecretFault, read_secret
from aero_l2.config.settings import Settings
from aero_l2.config.sources import Sources, gather
from aero_l2.config.values import BadValue
from aero_l2.config.variable import Variable
from aero_l2.config.variables import VARIABLES
from aero_l2.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, lines for the log, and who gave each setting.

    Attributes:
        settings: what the program acts on.
        warnings: what is accepted and yet worth a line, without secrets.
        given: by field, what somebody gave, a secret's value left out; a field with its default is missing.
    """

    settings: Settings
    warnings: tuple[str, ...]
    given: Mapping[str, Given]

    def name_of(self, field: str) -> str:
        """How to speak of the setting that fills `field`: what gave it, for example `--bind`.

        The variable of a setting that has its default; of a file, the key and where it is.
        """
        given = self.given.get(field)
        return given.subject if given else next(one.name for one in VARIABLES if one.field == field)


class _Reading:
    """One pass over the sources, collecting what is wrong with them."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.fields: dict[str, Any] = {}
        self.given: dict[str, Given] = {}
        self.faults: list[str] = []
        self.warnings: list[str] = []

    def read(self, variable: Variable) -> None:
        if variable.secret:
            self._read_secret(variable)
        else:
            self._read_value(variable)

    def _read_value(self, variable: Variable) -> None:
        given = self._effective(variable)
        if given is not None:
            self.given[variable.field] = given
        try:
            self.fields[variable.field] = _parsed(
                variable, variable.default if given is None else given.value
            )
        except BadValue as fault:
            assert given is not None
            self.faults.append(given.fault(str(fault), fault.fix + variable.unit_help))

    def _effective(self, variable: Variable) -> Given | None:
        """The value that counts, None for the default."""
        for given in self.sources.given(*variable.names):
            is_zero = variable.zero_is_unset and given.value.strip("0") == ""
            counts = variable.blank_is_empty or (not is_zero and given.value)
            if given.place is Place.COMMAND_LINE or counts:
                return given
        return None

    def _read_secret(self, variable: Variable) -> None:
        try:
            secret = read_secret(variable, self.sources)
        except SecretFault as fault:
            self.faults.append(str(fault))
            return
        self.fields[variable.field] = secret.keys
        self.warnings += secret.warnings
        if secret.given is not None:
            self.given[variable.field] = replace(secret.given, value="")

    def judge_unused(self) -> None:
        """What has no effect has to be a number, of which the strongest that is set counts."""
        for name in sorted(unused.NAMES):
            said = [given for given in self.sources.given(name) if given.value]
            try:
                if said:
                    values.count(said[0].value)
            except BadValue as fault:
                self.faults.append(said[0].fault(str(fault), fault.fix))


def about_names(sources: Sources) -> Iterator[str]:
    """Warnings about variables that nobody reads, and former names."""
    for name in sorted(sources.environment):
        if name not in KNOWN:
            yield f"{on_one_line(name)} is not a setting{hint(toml_key(name), as_key=False)}"
    for variable in VARIABLES:
        for given in sources.given(*variable.deprecated):
            if given.value:
                yield f"{given.subject} is deprecated, use {given.called(variable.name)}"


def load(sources: Sources | Mapping[str, str]) -> Loaded:
    """Judge what the sources say; a mapping is an environment (usually os.environ).

    Values are trimmed and blank means unset, the port lists excepted.

    Raises:
        ConfigError: one line for each fault, naming variable, value (never a secret's) and fix.
    """
    reading = _Reading(sources if isinstance(sources, Sources) else gather(sources))
    reading.faults += reading.sources.config_faults
    reading.judge_unused()
    for variable in VARIABLES:
        reading.read(variable)
    reading.warnings += about_names(reading.sources)
    judged = rules.judge(reading.fields, reading.given)
    faults = reading.faults + judged.faults
    if faults:
        raise ConfigError(faults)
    return Loaded(Settings(**judged.fields), (*reading.warnings, *judged.warnings), reading.given)


def _parsed(variable: Variable, value: str) -> Any:
    if not _is_utf8(value):
        raise BadValue("is not UTF-8", "write text")
    if "\0" in value:
        raise BadValue("has a NUL in it", "leave it out")
    return variable.parse(value)


def _is_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
