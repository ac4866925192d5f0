"""Secrets out of their sources: the value itself or a file of it, and those it replaced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from aero_l2.auth.keys import Keys
from aero_l2.config import secret_quirks
from aero_l2.config.given import Given
from aero_l2.config.names import FILE, PREVIOUS
from aero_l2.config.sources import Sources
from aero_l2.config.variable import Variable

MAX_PREVIOUS: Final = 16


class SecretFault(ValueError):
    """A secret cannot be used; str() is the line that says why, without it."""


@dataclass(frozen=True, slots=True)
class SecretRead:
    """A secret and, for people, where it came from: None where it is not set."""

    keys: Keys
    given: Given | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, repr=False)
class _Text:
    """The text of one secret; `given` is the variable that holds it or names its file."""

    text: str
    given: Given
    is_from_file: bool
    beside: tuple[Given, ...]
    """Other variables for the same secret, or for its file, that are set and do not count."""

    def fault(self, problem: str, fix: str) -> str:
        """One line, with the path where it is a file, without the secret where it is none."""
        return self.given.fault(problem, fix, secret=not self.is_from_file)


def read_secret(variable: Variable, sources: Sources) -> SecretRead:
    """The secret that counts, the first of its names in the strongest source, and all previous ones.

    Raises SecretFault.
    """
    found = _find(variable.names, sources)
    rotation = [before for name in variable.names if (before := _find((name + PREVIOUS,), sources))]
    previous = {key: before for before in rotation for key in _previous_keys(before)}
    if found is None:
        for before in previous.values():
            raise SecretFault(
                before.fault(f"stands alone, without {variable.name}", "set that, or leave this out")
            )
        return SecretRead(Keys(), None, ())
    current = _encoded(found.text, found)
    previous.pop(current, None)
    if len(previous) > MAX_PREVIOUS:
        raise SecretFault(f"{variable.name}{PREVIOUS} has {len(previous)} secrets: keep to {MAX_PREVIOUS}")
    lines = [*secret_quirks.of_current(current, found.given, is_api_key=variable.field == "api_keys")]
    for key, where in {current: found, **previous}.items():
        lines += secret_quirks.of_any(key, where.given)
    for where in (found, *rotation):
        lines += _shadowed(where, sources)
    return SecretRead(Keys(current, tuple(previous)), found.given, tuple(dict.fromkeys(lines)))


def _shadowed(found: _Text, sources: Sources) -> Iterator[str]:
    """Lines on what is given beside `found` and does not count, unless it is the same."""
    for given in found.beside:
        text = sources.files.get(given.value) if given.name.endswith(FILE) else given.value
        if text != found.text:
            yield f"{given.subject} has no effect: {found.given.subject} counts first"


def _find(names: tuple[str, ...], sources: Sources) -> _Text | None:
    """The first of `names` that is set, or whose file is named, in the strongest source that has one."""
    stated = [given for given in sources.given(*names, *(name + FILE for name in names)) if given.value]
    if not stated:
        return None
    place = stated[0].place
    here = {given.name: given for given in stated if given.place is place}
    name = next(name for name in names if name in here or name + FILE in here)
    direct, file = here.get(name), here.get(name + FILE)
    if direct is not None and file is not None:
        raise SecretFault(direct.fault(f"is set, and {file.label} too", "keep one of them", secret=True))
    if file is None:
        assert direct is not None
        return _Text(direct.value, direct, False, _others(stated, direct))
    if file.value in sources.unreadable:
        raise SecretFault(file.fault(*sources.unreadable[file.value], secret=file.value in sources.hidden))
    return _Text(sources.files[file.value], file, True, _others(stated, file))


def _others(stated: list[Given], counts: Given) -> tuple[Given, ...]:
    return tuple(given for given in stated if given is not counts)


def _previous_keys(found: _Text) -> list[bytes]:
    """An empty file has none: the end of a rotation."""
    if not found.text:
        return []
    lines = [line.strip() for line in found.text.split("\n")]
    if "" in lines:
        number = lines.index("") + 1
        raise SecretFault(found.fault(f"has an empty line {number}", "write one secret per line"))
    return [_encoded(line, found) for line in lines]


def _encoded(text: str, found: _Text) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise SecretFault(found.fault("is not UTF-8", "write text, base64 for example")) from None
