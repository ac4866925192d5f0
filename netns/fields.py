"""Fields of messages between server and netd, checked: JSON from the other side in, typed values out.

Each raises MessageError and nothing else, whatever the value.
"""

import json
from ipaddress import IPv4Address
from typing import Any

from netns.errors import MessageError
from netns.stopwatch import STEPS

MAX_OPENINGS = 256
MAX_OPEN_S = 2**32
_MAX_ID = 2**53


def read(data: bytes) -> dict[str, Any]:
    """The one JSON object of a message."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"not JSON: {error}") from error
    if type(fields) is not dict:
        raise MessageError("not a JSON object")
    return fields


def identifier(value: Any) -> int:
    """An id, of a tunnel or a request."""
    if type(value) is not int or not 1 <= value <= _MAX_ID:
        raise MessageError("not an id")
    return value


def durations(values: list[Any]) -> tuple[int, ...]:
    """Microseconds of the first steps of `STEPS`."""
    if len(values) > len(STEPS) or any(type(value) is not int or value < 0 for value in values):
        raise MessageError("not durations")
    return tuple(values)


def counters(value: Any) -> dict[str, int] | None:
    """Packets by name, or None."""
    if value is None:
        return None
    if type(value) is not dict or not all(type(packets) is int for packets in value.values()):
        raise MessageError("not counters")
    return value


def openings(values: list[Any]) -> tuple[tuple[IPv4Address, int], ...]:
    """Addresses with the seconds that each is to be open, none twice."""
    if not 1 <= len(values) <= MAX_OPENINGS:
        raise MessageError(f"{len(values)} addresses to open")
    found = {}
    for value in values:
        match value:
            case [str(address), int(seconds)] if type(seconds) is int and 1 <= seconds <= MAX_OPEN_S:
                found.update(dict.fromkeys(addresses([address]), seconds))
            case _:
                raise MessageError("not an address and seconds")
    if len(found) != len(values):
        raise MessageError("an address to open twice")
    return tuple(found.items())


def addresses(values: list[Any]) -> frozenset[IPv4Address]:
    """IPv4 addresses."""
    try:
        return frozenset(IPv4Address(value) for value in values if type(value) is str)
    except ValueError as error:
        raise MessageError(f"not an address: {error}") from error
