"""Secrets out of their sources: the value itself or a file of it, and those it replaced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aero_l2.auth.keys import Keys
from aero_l2.config.given import Given
from aero_l2.config.names import FILE, PREVIOUS
from aero_l2.config.sources import Sources
from aero_l2.config.variable import Variable

MAX_PREVIOUS: Final = 16
SHORT_BYTES: Final = 16


class SecretFault(ValueError):
    """A secret cannot be used; str() is the line that says why, without it."""


@dataclass(frozen=True, slots=True)
class SecretRead:
    """A secret and, for people, where it came from: None where it is not set."""

    keys: Keys
    given: Given | None
    is_from_file: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, repr=False)
class _Text:
    """The text of one secret; `given` is the variable that holds it or names its file."""

    text: str
    given: Given
    is_from_file: bool


def read_secret(variable: Variable, sources: Sources) -> SecretRead:
    """The secret that counts, the first of its names in the strongest source, and all previous ones.

    Raises SecretFault.
    """
    found = _find(variable.names, sources)
    previous: dict[bytes, None] = {}
    short = []
    for name in variable.names:
        before = _find((name + PREVIOUS,), sources)
        if before is None:
            continue
        keys = _previous_keys(before)
        if found is None:
            raise SecretFault(
                before.given.fault(
                    f"stands alone, without {variable.name}", "set that, or leave this out", secret=True
                )
            )
        short += [before.given] if any(len(key) < SHORT_BYTES for key in keys) else []
        previous |= dict.fromkeys(keys)
    if found is None:
        return SecretRead(Keys(), None, False, ())
    current = _encoded(found.text, found)
    short = [found.given, *short] if len(current) < SHORT_BYTES else short
    if len(previous) > MAX_PREVIOUS:
        raise SecretFault(f"{variable.name}{PREVIOUS} has {len(previous)} secrets: keep to {MAX_PREVIOUS}")
    previous.pop(current, None)
    warnings = tuple(
        f"{given.subject} holds a secret shorter than {SHORT_BYTES} bytes, which can be guessed: "
        "make another with `aero-l2 token key`"
        for given in short
    )
    return SecretRead(Keys(current, tuple(previous)), found.given, found.is_from_file, warnings)


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
        return _Text(direct.value, direct, False)
    if file.value in sources.unreadable:
        raise SecretFault(
            file.fault(sources.unreadable[file.value], "name a file that holds the secret and nothing else")
        )
    return _Text(sources.files[file.value], file, True)


def _previous_keys(found: _Text) -> list[bytes]:
    lines = [line.strip() for line in found.text.split("\n")]
    if "" in lines:
        number = lines.index("") + 1
        raise SecretFault(
            found.given.fault(
                f"has an empty line {number}", "write one secret per line", secret=not found.is_from_file
            )
        )
    return [_encoded(line, found) for line in lines]


def _encoded(text: str, found: _Text) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise SecretFault(
            found.given.fault("is not UTF-8", "write text, base64 for example", secret=True)
        ) from None
