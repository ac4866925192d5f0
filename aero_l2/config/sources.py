"""Where settings come from, as data: what was read once can be handed to another process and judged there.

`serve` reads everything, perhaps as root; the server works as the service user on what it is handed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Self

from aero_l2.config import toml_file
from aero_l2.config.files import Unreadable, read_file
from aero_l2.config.given import Given, Place, on_one_line
from aero_l2.config.names import FILE, KNOWN, PATHS, PREVIOUS, is_ours, toml_key
from aero_l2.errors import ConfigError

MAX_SECRET_BYTES: Final = 65_536
_MAX_CONFIG_BYTES: Final = 1_048_576
_LISTEN: Final = "AERO_L2_PROXY_LISTEN_ADDR"
_NONE: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, repr=False)
class Sources:
    """Everything settings are made of. Values are by variable name; all of it may be secret, so repr is mute.

    Attributes:
        environment: variables of ours; the values of unknown ones are left out.
        command_line: what options of `serve` say instead of variables.
        config_path: absolute path of the TOML file.
        config: what it says, as text.
        config_faults: what is wrong with it, a line each.
        files: contents of secrets' files by absolute path, trimmed.
        unreadable: why a secret's file cannot be used, by absolute path.
    """

    environment: Mapping[str, str] = field(default_factory=lambda: _NONE)
    command_line: Mapping[str, str] = field(default_factory=lambda: _NONE)
    config_path: str | None = None
    config: Mapping[str, str] = field(default_factory=lambda: _NONE)
    config_faults: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=lambda: _NONE)
    unreadable: Mapping[str, str] = field(default_factory=lambda: _NONE)

    def levels(self) -> tuple[tuple[Place, Mapping[str, str]], ...]:
        """Values by place, strongest first."""
        return (
            (Place.COMMAND_LINE, self.command_line),
            (Place.ENVIRONMENT, self.environment),
            (Place.FILE, self.config),
        )

    def given(self, *names: str) -> Iterator[Given]:
        """What is said under `names`, blank or not, values trimmed: by place, then by order of `names`."""
        for place, values in self.levels():
            for name in names:
                if name in values:
                    yield self._given(name, values[name].strip(), place)

    def _given(self, name: str, value: str, place: Place) -> Given:
        match place:
            case Place.COMMAND_LINE:
                return Given(name, value, place, "--bind")
            case Place.ENVIRONMENT:
                return Given(name, value, place, name)
            case Place.FILE:
                return Given(name, value, place, toml_key(name), f" in {on_one_line(self.config_path or '')}")

    def to_json(self) -> str:
        """All of it, secrets too, as ASCII."""
        return json.dumps({key: _plain(getattr(self, key)) for key in self.__slots__})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "config_faults": tuple(fields["config_faults"])})

    def __repr__(self) -> str:
        """Say how much there is, not what."""
        return (
            f"Sources({len(self.environment)} variables, {len(self.config)} of {self.config_path}, "
            f"{len(self.files)} files)"
        )


def gather(
    environment: Mapping[str, str], config_path: str | None = None, bind: str | None = None
) -> Sources:
    """Read everything settings may come from.

    Files of secrets that cannot be read are noted, for `load` to refuse if they are needed; so are faults in
    the TOML file. Relative paths are the current directory's, those in the TOML file its own directory's.

    Args:
        environment: usually os.environ; what is not meant for us is left out.
        config_path: the TOML file (`--config`).
        bind: HOST:PORT (`--bind`).

    Raises:
        ConfigError: the TOML file cannot be read.
    """
    ours = {name: value if name in KNOWN else "" for name, value in environment.items() if is_ours(name)}
    sources = Sources(
        environment=_absolute(ours, os.curdir),
        command_line={} if bind is None else {_LISTEN: bind},
    )
    if config_path is not None:
        path = os.path.abspath(config_path)
        try:
            sources = _with_config(sources, path)
        except Unreadable as reason:
            raise ConfigError([f"--config={config_path!r} {reason}: correct it"]) from None
    files, unreadable = _read_secrets(sources)
    return replace(sources, files=files, unreadable=unreadable)


def reread(sources: Sources) -> tuple[Sources, tuple[str, ...]]:
    """Read files again, for a process that goes on: what cannot be read any more keeps its content.

    Returns the new sources, and a line for each file that kept its old content, with its path and the reason.
    """
    warnings = []
    config_path = sources.config_path
    if config_path is not None:
        try:
            sources = _with_config(sources, config_path, wait=False)
        except Unreadable as reason:
            warnings.append(f"{on_one_line(config_path)} {reason}; what it held before stays in force")
    files, unreadable = _read_secrets(sources, wait=False)
    for path in [path for path in unreadable if path in sources.files]:
        files[path] = sources.files[path]
        warnings.append(f"{on_one_line(path)} {unreadable.pop(path)}; what it held before stays in force")
    return replace(sources, files=files, unreadable=unreadable), tuple(warnings)


def _with_config(sources: Sources, path: str, *, wait: bool = True) -> Sources:
    data = read_file(path, _MAX_CONFIG_BYTES, wait=wait)
    try:
        values, faults = toml_file.parse(data, on_one_line(path))
    except toml_file.NotToml as fault:
        raise Unreadable(str(fault)) from None
    values = _absolute(values, os.path.dirname(path))
    return replace(sources, config_path=path, config=values, config_faults=faults)


def _absolute(values: Mapping[str, str], folder: str) -> dict[str, str]:
    """`values` with absolute paths, which mean the same wherever they are read again."""
    paths = {
        name: os.path.abspath(os.path.join(folder, path))
        for name in PATHS
        if (path := values.get(name, "").strip())
    }
    return {**values, **paths}


def _read_secrets(sources: Sources, *, wait: bool = True) -> tuple[dict[str, str], dict[str, str]]:
    """Contents of the files that are named, and why the others have none; both by path."""
    files, unreadable = {}, {}
    named = [given for given in sources.given(*PATHS) if given.value]
    current = {given.value for given in named if not given.name.endswith(PREVIOUS + FILE)}
    for path in dict.fromkeys(given.value for given in named):
        try:
            files[path] = _read_secret(path, wait=wait, may_be_empty=path not in current)
        except Unreadable as reason:
            unreadable[path] = str(reason)
    return files, unreadable


def _read_secret(path: str, *, wait: bool, may_be_empty: bool) -> str:
    try:
        text = read_file(path, MAX_SECRET_BYTES, wait=wait).decode().strip()
    except UnicodeDecodeError:
        raise Unreadable("is not UTF-8") from None
    if not text and not may_be_empty:
        raise Unreadable("is empty")
    return text


def _plain(value: object) -> object:
    match value:
        case Mapping():
            return dict(value)
        case tuple():
            return list(value)
    return value
