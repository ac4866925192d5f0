"""What a line of the log looks like: one JSON object, or words for a terminal. Pure; the server's look alike.

Names of fields and bounds are those of docs/logs.md. netd does without structlog: importing that takes 4 MB
and 30 ms (docs/adr/0029).
"""

import json
import math
import time
from collections.abc import Mapping
from typing import Final, Literal

Style = Literal["json", "console", "color"]
Level = Literal["debug", "info", "warning", "error"]
RANKS: Final[Mapping[str, int]] = {"debug": 0, "info": 1, "warning": 2, "error": 3}
MAX_LINE: Final = 4096
"""Bytes of a line, its end included: what write(2) puts into a pipe as one (PIPE_BUF, pipe(7))."""
MAX_VALUE: Final = 1000
MAX_EXCEPTION: Final = 2500
_EVENT_WIDTH: Final = 30
_LEVEL_WIDTH: Final = 9
_MORE: Final = "..."
_BYTES_OF_ONE: Final = 12
"""Of a character beyond the Basic Multilingual Plane, escaped in JSON."""
_BRIGHT, _DIM, _CYAN, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[36m", "\x1b[0m"
_COLORS: Final[Mapping[str, str]] = {
    "debug": "\x1b[32m",
    "info": "\x1b[32m",
    "warning": "\x1b[33m",
    "error": "\x1b[31m",
}


def render(
    style: Style, now: float, level: Level, event: str, component: str, fields: Mapping[str, object]
) -> str:
    """One line without its end. ``now``: unix seconds. A field that is None is left out."""
    said = {name: value for name, value in fields.items() if value is not None}
    if style == "json":
        return _as_json(now, level, event, {"component": component, **said})
    return _as_words(now, level, event, {**said, "component": component}, is_colored=style == "color")


def utc(now: float) -> str:
    """RFC 3339, UTC, microseconds."""
    seconds, micros = divmod(round(now * 1e6), 10**6)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{micros:06d}Z"


def cut(text: str, most: int) -> str:
    """At most so many bytes of it in JSON, the head of it."""
    room = most if text.isascii() and text.isprintable() else most // _BYTES_OF_ONE
    return text if len(text) <= room else text[: room - len(_MORE)] + _MORE


def tail(text: str, most: int) -> str:
    """At most so many characters of it, the end of it: that of a traceback says what was wrong."""
    return text if len(text) <= most else _MORE + text[len(_MORE) - most :]


def escaped(text: str) -> str:
    """``text`` on one line that does nothing to a terminal: what is not printable as Python escapes it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(value: object) -> str:
    """A value for a terminal, in quotes where it would not be seen where it ends."""
    text = str(value)
    if isinstance(value, str) and (not text or any(c in text for c in ' "=\\')):
        text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return escaped(text)


def _as_json(now: float, level: Level, event: str, fields: Mapping[str, object]) -> str:
    for most in (MAX_VALUE, MAX_VALUE // 10):
        head = {"timestamp": utc(now), "level": level, "event": event}
        line = json.dumps({**head, **{name: _fit(name, value, most) for name, value in fields.items()}})
        if len(line) < MAX_LINE:
            break
    return line


def _fit(name: str, value: object, most: int) -> object:
    if name == "exception":
        return tail(str(value), MAX_EXCEPTION if most == MAX_VALUE else MAX_EXCEPTION // 2)
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return cut(str(value), most)


def _as_words(now: float, level: Level, event: str, fields: Mapping[str, object], *, is_colored: bool) -> str:
    bright, dim, cyan, plain = (_BRIGHT, _DIM, _CYAN, _PLAIN) if is_colored else ("", "", "", "")
    color = _COLORS[level] if is_colored else ""
    seconds, micros = divmod(round(now * 1e6), 10**6)
    clock = time.strftime("%H:%M:%S", time.localtime(seconds)) + f".{micros:06d}"
    words = [
        f"{cyan}{name}{plain}={quoted(cut(value, MAX_VALUE) if isinstance(value, str) else value)}"
        for name, value in fields.items()
        if name != "exception"
    ]
    line = (
        f"{dim}{clock}{plain} [{color}{level:<{_LEVEL_WIDTH}}{plain}] "
        f"{bright}{event:<{_EVENT_WIDTH}}{plain} {' '.join(words)}"
    )
    below = tail(str(fields.get("exception", "")), MAX_EXCEPTION).splitlines()
    return "\n".join([line, *map(escaped, below)])
