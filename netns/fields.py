"""Values in messages between server and netd, checked one by one; each raises MessageError, nothing else."""

import json
from typing import Any

from netns.errors import MessageError
from netns.stopwatch import STEPS

_MAX_ID = 2**53


def fields_of(data: bytes) -> dict[str, Any]:
    """What a message says, by name."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"not JSON: {error}") from error
    if type(fields) is not dict:
        raise MessageError("not a JSON object")
    return fields


def id_of(value: Any) -> int:
    """What a tunnel or a request is called."""
    if type(value) is not int or not 1 <= value <= _MAX_ID:
        raise MessageError("not an id")
    return value


def durations_of(values: list[Any]) -> tuple[int, ...]:
    """Microseconds of the first steps of `STEPS`."""
    if len(values) > len(STEPS) or any(type(value) is not int or value < 0 for value in values):
        raise MessageError("not durations")
    return tuple(values)


def counters_of(value: Any) -> dict[str, int] | None:
    """Packets by named counter, None where they are not known."""
    if value is None:
        return None
    if type(value) is not dict or not all(type(packets) is int for packets in value.values()):
        raise MessageError("not counters")
    return value
