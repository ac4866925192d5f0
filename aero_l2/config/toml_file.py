"""A TOML file of settings → the text each variable would hold, so that one parser judges both."""

from __future__ import annotations

import re
import tomllib
from typing import Final

from aero_l2.config.names import BY_KEY, BY_NAME, PATHS, SECRETS, hint, toml_key
from aero_l2.config.variable import Kind, Variable

_LARGEST: Final = 10**18
_MAX_SHOWN: Final = 60
_SAFE_REASON = re.compile(r"(?:[^'\"]|'[^'\"]')*", re.ASCII)  # at most single characters of the file
_WHERE = re.compile(r" \((at [a-z0-9, ]+)\)$")
_FIX: Final[dict[Kind, str]] = {
    "number": "write a whole number, without quotes",
    "yes or no": "write true or false, without quotes",
    "exactly 1": "write 1",
    "text": "write a string in quotes",
}
_LIST_FIX: Final = 'write an array of strings, for example ["a", "b"]'


class NotToml(ValueError):
    """The file is no TOML; str() says where, and nothing of what stands there."""


class _WrongType(ValueError):
    """A value that is not what its setting takes; str() is the fix."""


def parse(data: bytes, path: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Values by variable name, and a line for each key that is unknown or has a value of the wrong type.

    Raises NotToml.
    """
    try:
        table = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise NotToml(f"is not UTF-8 at line {line}") from None
    except RecursionError:
        raise NotToml("is nested too deeply") from None
    except ValueError as error:
        raise NotToml(_reason(str(error))) from None
    values: dict[str, str] = {}
    faults = []
    for key, value in table.items():
        name = BY_KEY.get(key)
        if name is None:
            faults.append(f"{_shown_key(key)} in {path} is not a setting{hint(toml_key(key), as_key=True)}")
            continue
        try:
            values[name] = _text(name, value)
        except _WrongType as fix:
            shown = "" if _is_secret(name) else _shown(value)
            faults.append(f"{key}{shown} in {path} is {_type_name(value)}: {fix}")
    return values, tuple(faults)


def _reason(message: str) -> str:
    """tomllib's reason and place, without the reason where it quotes the file."""
    where = _WHERE.search(message)
    if where is None:
        return "is not TOML"
    reason = message[: where.start()]
    is_safe = reason.isprintable() and _SAFE_REASON.fullmatch(reason)
    return f"is not TOML {where[1]}" + (f": {reason[0].lower()}{reason[1:]}" if is_safe else "")


def _text(name: str, value: object) -> str:
    variable = BY_NAME.get(name)
    if _is_secret(name):
        return _secret_text(name, value)
    return _any_text(value) if variable is None else _variable_text(variable, value)


def _is_secret(name: str) -> bool:
    """Whether it is a secret, or names the file of one, where it may have been put by mistake."""
    return name in SECRETS or name in PATHS


def _variable_text(variable: Variable, value: object) -> str:
    match variable.kind, value:
        case "yes or no", bool():
            return "1" if value else "0"
        case "number" | "exactly 1", bool():
            pass
        case "number" | "exactly 1", int(number) if abs(number) < _LARGEST:
            return str(number)
        case "text" | "exactly 1", str(text):
            return text
        case "text", list(items) if variable.listed:
            if variable.blank_is_empty:
                items = [str(item) if type(item) is int and abs(item) < _LARGEST else item for item in items]
            return _joined(items, ",", _LIST_FIX)
    raise _WrongType(_LIST_FIX if variable.listed else _FIX[variable.kind])


def _secret_text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and name.endswith("_PREVIOUS"):
        return _joined(value, "\n", _LIST_FIX)
    raise _WrongType(_FIX["text"])


def _any_text(value: object) -> str:
    """Of a variable this version knows by name only."""
    match value:
        case bool():
            return "1" if value else "0"
        case int() if abs(value) < _LARGEST:
            return str(value)
        case str():
            return value
        case list():
            return ",".join(_any_text(item) for item in value)
    raise _WrongType("this version does not support it, leave it out")


def _joined(items: list[object], separator: str, fix: str) -> str:
    texts = [item for item in items if isinstance(item, str) and separator not in item]
    if len(texts) != len(items):
        raise _WrongType(fix)
    return separator.join(texts)


def _shown(value: object) -> str:
    """`=` and the value, shortened; nothing of a table, nor of a number beyond what Python writes as text."""
    if isinstance(value, dict):
        return ""
    try:
        text = repr(value) if isinstance(value, str | list) else str(value).lower()
    except ValueError:
        return ""
    return f"={text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + '…'}"


def _type_name(value: object) -> str:
    match value:
        case bool():
            return "true or false"
        case int():
            return "a number" if abs(value) < _LARGEST else "too large a number"
        case float():
            return "a number with a fraction"
        case str():
            return "a string"
        case list():
            return "an array"
        case dict():
            return "a table"
    return "a date or time"


def _shown_key(key: str) -> str:
    return key if key.isidentifier() and key.isascii() else repr(key)
