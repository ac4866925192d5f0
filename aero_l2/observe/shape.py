"""What the server's lines of log look like: bounded, on one line, nothing in them that acts. Pure.

docs/logs.md says what may be relied upon; netd's and the supervisor's lines are alike (`netns.lineshape`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Final

import structlog
from structlog.typing import EventDict

MAX_LINE: Final = 4096
"""Bytes of a line of JSON, its end included: what write(2) puts into a pipe as one (PIPE_BUF, pipe(7))."""
MAX_VALUE: Final = 1000
MAX_EXCEPTION: Final = 2500
MAX_ITEMS: Final = 20
MAX_FIELDS: Final = 40
HEAD: Final = ("timestamp", "level", "event", "component", "session", "client", "peer", "principal")
"""Fields that come first, in this order, where they are there."""

EVENT_WIDTH: Final = 30
_MORE: Final = "..."
_BYTES_OF_ONE: Final = 12
"""Of a character beyond the Basic Multilingual Plane, escaped in JSON."""
_HIDDEN: Final = re.compile(
    r"""(?x) (\?) [^\s'"?]* [=] [^\s'"]*     # a query string
    | (aero-l2-token\.) [^\s'",;]+           # a credential that travels as a subprotocol
    | (aero_session=) [^\s'",;]+             # ... as a cookie
    | (\b[Bb]earer\s) [^\s'",;]+             # ... as a header
    | (/v86/) [^\s'"?]+                      # ... in a path
    """
)


def scrub(text: str) -> str:
    """What a library or an exception said, without what may be a credential: the last of several walls."""
    return _HIDDEN.sub(lambda found: next(group for group in found.groups() if group) + _MORE, text)


def escaped(text: str) -> str:
    """`text` on one line that does nothing to a terminal: what is not printable as Python escapes it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(text: str) -> str:
    """A value for a terminal, in quotes where it would not be seen where it ends."""
    if not text or any(c in text for c in ' "=\\'):
        text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return escaped(text)


def as_json(_logger: object, _name: str, line: EventDict) -> str:
    """A processor of structlog, the last one: one JSON object (RFC 8259), ASCII, at most `MAX_LINE` bytes."""
    text = ""
    for most in (MAX_VALUE, MAX_VALUE // 10, MAX_VALUE // 50):
        text = json.dumps({name: _fit(name, line[name], most) for name in _in_order(line)})
        if len(text) < MAX_LINE:
            break
    return text


def as_words(colors: bool) -> Callable[[object, str, EventDict], str]:
    """The same for a terminal, where an exception stands on lines below."""
    console = _console(colors)

    def render(logger: object, name: str, line: EventDict) -> str:
        shown: EventDict = {field: _shown(field, line[field]) for field in _in_order(line)}
        shown["component"] = shown.pop("component", "server")  # the last one: it matters least
        return str(console(logger, name, shown))

    return render


def _console(colors: bool) -> structlog.dev.ConsoleRenderer:
    """structlog's, but for the quoting of values, which is done here; plain, since other formatters show
    local variables, secrets among them."""
    styles = structlog.dev.ConsoleRenderer.get_default_column_styles(colors=colors)
    levels = structlog.dev.ConsoleRenderer.get_default_level_styles(colors=colors)

    def column(name: str, key: str | None, value: str, width: int = 0) -> structlog.dev.Column:
        formatter = structlog.dev.KeyValueColumnFormatter(key, value, styles.reset, str, width)
        return structlog.dev.Column(name, formatter)

    return structlog.dev.ConsoleRenderer(
        columns=[
            column("timestamp", None, styles.timestamp),
            structlog.dev.Column("level", structlog.dev.LogLevelColumnFormatter(levels, styles.reset)),
            column("event", None, styles.bright, EVENT_WIDTH),
            column("", styles.kv_key, styles.kv_value),
        ],
        sort_keys=False,
        exception_formatter=structlog.dev.plain_traceback,
    )


def _in_order(line: Mapping[str, object]) -> list[str]:
    there = [name for name in line if line[name] is not None]
    return [*(n for n in HEAD if n in there), *(n for n in there if n not in HEAD)][:MAX_FIELDS]


def _fit(name: str, value: object, most: int) -> object:
    """The value as JSON may have it, in about so many bytes."""
    if name == "exception":
        return _tail(scrub(str(value)), MAX_EXCEPTION if most == MAX_VALUE else MAX_EXCEPTION // 2)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, list | tuple):
        items = [_fit("", item, most // 10) for item in value[:MAX_ITEMS]]
        return [*items, _MORE] if len(value) > MAX_ITEMS else items
    return _head(str(value), most)


def _shown(name: str, value: object) -> object:
    """The value in words; the exception keeps its lines."""
    fit = _fit(name, value, MAX_VALUE)
    if name == "exception":
        return "\n".join(map(escaped, str(fit).splitlines()))
    if name in ("timestamp", "level"):
        return fit
    if isinstance(fit, list):
        return escaped(str(fit))
    if name == "event":
        return escaped(str(fit))
    return quoted(fit) if isinstance(fit, str) else fit


def _head(text: str, most: int) -> str:
    """The head of it, in at most so many bytes of JSON; a lone surrogate, which is no character, escaped."""
    if text.isascii() and text.isprintable():
        room = most
    else:
        room = most // _BYTES_OF_ONE
        text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= room else text[: room - len(_MORE)] + _MORE


def _tail(text: str, most: int) -> str:
    """The end of it: that of a traceback says what was wrong."""
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= most else _MORE + text[len(_MORE) - most :]
