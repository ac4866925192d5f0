"""The table of events in docs/logs.md, what the source logs, and whether a log is made of them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAD = ("timestamp", "level", "event", "component")
WHOM = ("session", "client", "peer", "principal")
LEVELS = ("debug", "info", "warning", "error")
MAX_LINE = 4096
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_HAND_ON = ("netns/client.py", "aero_l2/observe/limit.py")
"""Where one place logs what others gave it to log."""
_TELLING = (*LEVELS, "exception", "write")


@dataclass(frozen=True)
class Event:
    """A row of the table. ``required`` and ``optional``: fields besides those of every line."""

    components: frozenset[str]
    levels: frozenset[str]
    required: frozenset[str]
    optional: frozenset[str]


@dataclass(frozen=True)
class Call:
    """A place that logs. ``levels``: none where they are decided elsewhere; ``fields``: those it names."""

    place: str
    event: str
    levels: frozenset[str]
    fields: frozenset[str]


def documented() -> dict[str, Event]:
    """The rows of docs/logs.md, by event."""
    table = (ROOT / "docs/logs.md").read_text().split("| event | component |")[1]
    events: dict[str, Event] = {}
    for row in re.findall(r"^\| `(.+)$", table, re.MULTILINE):
        name, components, levels, fields, _ = (part.strip() for part in f"`{row}".split("|", 4))
        words = re.findall(r"`(\w+\??)`", fields)
        optional = {word.removesuffix("?") for word in words if word.endswith("?")}
        if "whom" in fields:
            optional |= set(WHOM)
        event = Event(
            frozenset(components.split()),
            frozenset(levels.split()),
            frozenset(word for word in words if not word.endswith("?")),
            frozenset(optional),
        )
        assert name not in events, f"{name} is there twice"
        events[name.strip("`")] = event
    return events


def logged() -> Iterator[Call]:
    """Every place of the source that logs; AssertionError for an event that is no literal."""
    for package in ("aero_l2", "netns", "slirp"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if not name.startswith("aero_l2/attach/"):  # `aero-l2 connect` has a page of its own
                for node in ast.walk(ast.parse(path.read_text())):
                    if isinstance(node, ast.Call):
                        yield from _calls(node, f"{name}:{node.lineno}")


def _calls(node: ast.Call, place: str) -> Iterator[Call]:
    function = node.func
    called = ast.unparse(function)
    words = list(node.args)
    levels: frozenset[str]
    if isinstance(function, ast.Attribute) and function.attr in _TELLING and _is_log(function.value):
        if function.attr == "write":
            levels, words = frozenset(_text(words[0], place).split()), words[1:]
        else:
            levels = frozenset(("error" if function.attr == "exception" else function.attr,))
    elif called in ("log", "lines.log"):  # netns
        levels, words = frozenset((_text(words[0], place),)), words[1:]
    elif called.startswith("getattr(") and called.split("(")[1].split(",")[0].endswith("_log"):
        levels = frozenset()
    elif place.startswith(("netns/client.py", "netns/outbox.py")) and called in ("self._log", "self._lost"):
        levels = frozenset(("error",))
    else:
        return
    if isinstance(words[0], ast.Name) and place.startswith(_HAND_ON):
        return
    fields = {word.arg for word in node.keywords if word.arg} - {"kind"}
    fields |= {"text"} if len(words) > 1 else set()
    if "exc_info" in fields:
        fields = fields - {"exc_info"} | {"exception"}
    yield Call(place, _text(words[0], place), levels, frozenset(fields))


def _is_log(value: ast.expr) -> bool:
    return ast.unparse(value).endswith(("_log", ".log", "._limited"))


def _text(node: ast.expr, place: str) -> str:
    assert isinstance(node, ast.Constant), f"{place}: {ast.unparse(node)} is not the same text each time"
    assert isinstance(node.value, str), place
    return node.value


def check(log: str) -> list[dict[str, object]]:
    """The lines of a log in JSON; AssertionError for one that docs/logs.md does not describe."""
    events = documented()
    lines = []
    for line in log.splitlines():
        assert line.startswith("{"), f"no line of JSON: {line!r}"
        assert len(line) < MAX_LINE, line
        lines.append(json.loads(line))
        _check_line(lines[-1], events, line)
    return lines


def _check_line(said: dict[str, object], events: dict[str, Event], line: str) -> None:
    assert tuple(said)[: len(HEAD)] == HEAD, line
    assert TIMESTAMP.fullmatch(str(said["timestamp"])), line
    datetime.fromisoformat(str(said["timestamp"]))
    event = events.get(str(said["event"]))
    assert event is not None, f"docs/logs.md has no such event: {line}"
    fields = set(said) - set(HEAD)
    assert said["component"] in event.components, line
    assert said["level"] in event.levels, line
    assert event.required <= fields, f"without {event.required - fields}: {line}"
    assert fields <= event.required | event.optional, f"{fields - event.required - event.optional}: {line}"
