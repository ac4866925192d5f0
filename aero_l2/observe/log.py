"""Logs: structlog to stderr, readable on a terminal, one JSON object a line elsewhere (docs/logs.md)."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor

from aero_l2.observe.limit import Kind, LineLimit
from aero_l2.observe.outlet import Outlet
from aero_l2.observe.shape import as_json, as_words, scrub

LogFormat = Literal["auto", "console", "json"]
LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
LIBRARIES: Final = "library"
"""The component of what is not ours: asyncio, websockets, Python's warnings."""

_log = structlog.get_logger(component="server")


class Repeats:
    """Limits lines that are no ordinary event: exceptions and what libraries say. Their number is whatever
    provokes them may choose."""

    def __init__(self) -> None:
        self._limit = LineLimit()
        self._due: list[tuple[Kind, int]] = []

    def __call__(self, _logger: object, name: str, line: EventDict) -> EventDict:
        """A processor: drops an exception's line that is one too many."""
        failure = line.get("exc_info")
        if failure and not self.admits(name, str(line["event"]), _name_of(failure)):
            raise structlog.DropEvent
        return line

    def filter(self, record: logging.LogRecord) -> bool:
        """The same for a line of the standard library's loggers."""
        failure = _name_of(record.exc_info) if record.exc_info else ""
        return self.admits(record.levelname.lower(), record.name, failure)

    def admits(self, level: str, event: str, failure: str) -> bool:
        """Whether there is room for one more of that kind."""
        now = time.monotonic()
        self._due += self._limit.ended(now)
        return self._limit.admit(Kind(cast(Any, level), event, failure), now)

    def due(self) -> list[tuple[Kind, int]]:
        """Of which kinds lines were left out, and how many, since this was asked last."""
        due, self._due = self._due + self._limit.ended(time.monotonic()), []
        return due


_repeats = Repeats()


def configure(level: str = "info", format: str = "auto", stream: TextIO | None = None) -> None:
    """Set up logging for the process: structlog's, the standard library's, warnings, failures.

    Args:
        level: debug, info, warning or error; what is below it costs next to nothing.
        format: console, json, or auto: console where `stream` is a terminal.
        stream: stderr if None.
    """
    outlet = Outlet(stream if stream is not None else sys.stderr)
    is_terminal = outlet.isatty()
    on_console = format == "console" or (format == "auto" and is_terminal)
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if on_console else "iso", utc=not on_console),
    ]
    render = as_words(is_terminal and wants_colors(os.environ)) if on_console else as_json
    final: list[Processor] = [structlog.processors.format_exc_info, render]

    def ahead(lost: int) -> Iterable[str]:
        for line in _left_out(lost):
            text = line
            for processor in (*shared, render):
                text = processor(None, line["level"], text)  # type: ignore[assignment]
            yield f"{text}\n"

    outlet.ahead = ahead
    structlog.configure(
        processors=[_repeats, *shared, *final],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, outlet)),
        cache_logger_on_first_use=False,
    )
    _adopt_standard_library(LEVELS[level], shared, final, cast(TextIO, outlet))
    sys.excepthook = _process_fails
    threading.excepthook = _thread_fails
    sys.unraisablehook = _unraisable


def wants_colors(environment: Mapping[str, str]) -> bool:
    """Whether a terminal gets colours: not with NO_COLOR (no-color.org), nor where it is a dumb one."""
    return not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def report_failures(loop: asyncio.AbstractEventLoop) -> None:
    """Have the loop's own failures, in callbacks and transports, logged as one line each.

    Its own words would hold representations of what the callback was called with.
    """
    loop.set_exception_handler(_loop_fails)


def _left_out(lost: int) -> Iterable[EventDict]:
    if lost:
        yield {"event": "lines left out", "level": "warning", "component": "server", "lines": lost}
    for kind, lines in _repeats.due():
        yield {
            "event": "lines left out",
            "level": kind.level,
            "component": "server",
            "of": kind.event,
            "text": kind.text,
            "lines": lines,
        }


def _loop_fails(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    failure = context.get("exception")
    text = scrub(str(context.get("message", "")))
    if isinstance(failure, BaseException):
        _log.error("event loop fails", text=text, exc_info=failure)
    else:
        _log.error("event loop complains", text=text)


def _process_fails(_kind: type[BaseException], error: BaseException, _trace: object) -> None:
    _log.error("process fails", exc_info=error)


def _thread_fails(of: threading.ExceptHookArgs) -> None:
    thread = of.thread.name if of.thread is not None else None
    _log.error("thread fails", thread=thread, exc_info=of.exc_value)


def _unraisable(of: sys.UnraisableHookArgs) -> None:
    _log.error("error without a place", text=of.err_msg, exc_info=of.exc_value)


def _name_of(failure: object) -> str:
    """The class of an exception, however it was handed over."""
    if isinstance(failure, tuple):
        return getattr(failure[0], "__name__", "")
    return type(failure).__name__


def _of_library(_logger: object, name: str, line: EventDict) -> EventDict:
    """A line of somebody else's: what it says is no event of ours."""
    record: logging.LogRecord = line["_record"]
    level = name if name in LEVELS else "error"
    event = "Python warns" if record.name == "py.warnings" else "library says"
    said = {"event": event, "component": LIBRARIES, "logger": record.name, "level": level}
    return {**line, **said, "text": scrub(str(line["event"]))}


def _adopt_standard_library(
    level: int, shared: list[Processor], final: list[Processor], stream: TextIO
) -> None:
    """Let lines of asyncio and libraries look like ours; below `info` they would say what clients sent."""
    handler = logging.StreamHandler(stream)
    handler.addFilter(_repeats)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _of_library],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(level, logging.INFO))
    handler.setLevel(logging.INFO)
    logging.captureWarnings(True)
