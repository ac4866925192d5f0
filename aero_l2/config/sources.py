"""Where settings come from, as data: what was read once can be handed to another process and judged there.

`serve` reads everything, perhaps as root; the server works as the service user on what it is handed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Self

from aero_l2.config import toml_file
from aero_l2.config.files import Unreadable, read_file
from aero_l2.config.given import Given, Place, on_one_line
from aero_l2.config.names import FILE, KNOWN, PATHS, PREVIOUS, is_ours, toml_key
from aero_l2.errors import ConfigError

MAX_SECRET_BYTES: Final = 65_536
_MAX_CONFIG_BYTES: Final = 1_048_576
_LISTEN: Final = "AERO_L2_PROXY_LISTEN_ADDR"
_NONE: Final[Mapping[str, Any]] = MappingProxyType({})


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
        unreadable: why a secret's file cannot be used, and what to do about it, by absolute path.
        hidden: paths among these that may be a secret put in the wrong place, so that nobody is shown them.
        kept: absolute paths of the files that `reread` could not read, and that keep what they held.
    """

    environment: Mapping[str, str] = field(default_factory=lambda: _NONE)
    command_line: Mapping[str, str] = field(default_factory=lambda: _NONE)
    config_path: str | None = None
    config: Mapping[str, str] = field(default_factory=lambda: _NONE)
    config_faults: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=lambda: _NONE)
    unreadable: Mapping[str, tuple[str, str]] = field(default_factory=lambda: _NONE)
    hidden: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

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

    def listening_on(self, address: str) -> Self:
        """The same where HOST:PORT is settled, whatever is set."""
        return replace(self, command_line={**self.command_line, _LISTEN: address})

    def to_json(self) -> str:
        """All of it, secrets too, as ASCII."""
        return json.dumps({key: _plain(getattr(self, key)) for key in self.__slots__})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote."""
        fields = json.loads(text)
        tuples = {name: tuple(fields[name]) for name in ("config_faults", "hidden", "kept")}
        unreadable = {path: tuple(why) for path, why in fields["unreadable"].items()}
        return cls(**{**fields, **tuples, "unreadable": unreadable})

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
        hidden=_perhaps_secrets(ours, os.curdir),
    )
    if config_path is not None:
        if not config_path.strip():
            raise ConfigError([f"--config={config_path!r} is blank: name a TOML file, or leave it out"])
        try:
            sources = _with_config(sources, os.path.abspath(config_path))
        except Unreadable as reason:
            raise ConfigError([_config_fault(config_path, reason)]) from None
    files, unreadable = _read_secrets(sources)
    return replace(sources, files=files, unreadable=_plain_reasons(unreadable))


def reread(sources: Sources) -> tuple[Sources, tuple[str, ...]]:
    """Read files again, for a process that goes on.

    A file that was read before and cannot be read any more keeps what it held; one that can be read and is
    faulty is for `load` to refuse, like everything else that is wrong.

    Returns the new sources, whose `kept` are the paths of the former, and a warning for each of these.
    """
    kept, warnings = [], []
    config_path = sources.config_path
    if config_path is not None:
        try:
            sources = _with_config(sources, config_path, again=True)
        except Unreadable as reason:
            if reason.fix_later:
                kept.append(config_path)
                warnings.append(_kept(f"--config={config_path!r}", reason))
            else:
                sources = replace(sources, config_faults=(_config_fault(config_path, reason),))
    files, unreadable = _read_secrets(sources, again=True)
    for given in sources.given(*PATHS):
        path = given.value
        if path in sources.files and path in unreadable and unreadable[path].fix_later:
            files[path] = sources.files[path]
            kept.append(path)
            warnings.append(_kept(given.assignment(), unreadable.pop(path)))
    again = replace(sources, files=files, unreadable=_plain_reasons(unreadable), kept=tuple(kept))
    return again, tuple(warnings)


def _config_fault(path: str, reason: Unreadable) -> str:
    return f"--config={path!r} {reason}: {reason.fix}"


def _kept(subject: str, reason: Unreadable) -> str:
    return f"{subject} {reason}; what it held before stays in force: {reason.fix_later}"


def _plain_reasons(unreadable: Mapping[str, Unreadable]) -> dict[str, tuple[str, str]]:
    return {path: (str(reason), reason.fix) for path, reason in unreadable.items()}


def _with_config(sources: Sources, path: str, *, again: bool = False) -> Sources:
    data = read_file(path, _MAX_CONFIG_BYTES, again=again)
    try:
        values, faults = toml_file.parse(data, on_one_line(path))
    except toml_file.NotToml as fault:
        raise Unreadable(str(fault), "correct it") from None
    folder = os.path.dirname(path)
    return replace(
        sources,
        config_path=path,
        config=_absolute(values, folder),
        config_faults=faults,
        hidden=tuple(dict.fromkeys((*sources.hidden, *_perhaps_secrets(values, folder)))),
    )


def _absolute(values: Mapping[str, str], folder: str) -> dict[str, str]:
    """`values` with absolute paths, which mean the same wherever they are read again."""
    return {**values, **{name: _path(folder, values[name]) for name in _named_paths(values)}}


def _perhaps_secrets(values: Mapping[str, str], folder: str) -> tuple[str, ...]:
    """Absolute paths of which nothing is there, and that were not even written like one."""
    paths = (
        _path(folder, values[name]) for name in _named_paths(values) if values[name].strip()[0] not in "/."
    )
    return tuple(path for path in paths if not os.path.lexists(path))


def _named_paths(values: Mapping[str, str]) -> list[str]:
    return [name for name in PATHS if values.get(name, "").strip()]


def _path(folder: str, path: str) -> str:
    return os.path.abspath(os.path.join(folder, path.strip()))


def _read_secrets(sources: Sources, *, again: bool = False) -> tuple[dict[str, str], dict[str, Unreadable]]:
    """Contents of the files that are named, and why the others have none; both by path."""
    files, unreadable = {}, {}
    named = [given for given in sources.given(*PATHS) if given.value]
    current = {given.value for given in named if not given.name.endswith(PREVIOUS + FILE)}
    for path in dict.fromkeys(given.value for given in named):
        try:
            files[path] = _read_secret(path, again=again, may_be_empty=path not in current)
        except Unreadable as reason:
            unreadable[path] = reason
    return files, unreadable


def _read_secret(path: str, *, again: bool, may_be_empty: bool) -> str:
    try:
        text = read_file(path, MAX_SECRET_BYTES, again=again).decode().strip()
    except UnicodeDecodeError:
        raise Unreadable("is not UTF-8", "write text, base64 for example") from None
    if not text and not may_be_empty:
        raise Unreadable("is empty", "write the secret into it")
    return text


def _plain(value: object) -> object:
    match value:
        case Mapping():
            return dict(value)
        case tuple():
            return list(value)
    return value
