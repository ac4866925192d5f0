"""Lines of netd and launch: of the server's kind, bounded in number and length, whole or not there."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import logevents

from aero_l2.observe import shape
from netns import lineshape
from netns.lines import LINES_PER_WINDOW, WAIT_S, WINDOW_S, LineLimit, Log
from netns.lineshape import MAX_LINE, render

NOW = 1741944413.589793


def test_lines_of_a_window_are_limited_and_the_rest_is_counted() -> None:
    limit = LineLimit()
    verdicts = [limit.admit(100.0) for _ in range(LINES_PER_WINDOW + 7)]
    assert verdicts == [0] * LINES_PER_WINDOW + [None] * 7
    assert limit.admit(100.0 + WINDOW_S) == 7
    assert limit.admit(100.0 + WINDOW_S) == 0


_FIELDS = st.dictionaries(
    st.sampled_from(["session", "text", "pid", "exception", "a", "b"]),
    st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=5000), st.lists(st.text(max_size=9))),
)


@given(_FIELDS)
def test_any_line_is_one_object_of_json_that_a_pipe_takes_whole(fields: dict[str, object]) -> None:
    line = render("json", NOW, "error", "an event", "netd", fields)
    assert len(line) < MAX_LINE
    assert line.isascii()
    assert line.isprintable()
    said = json.loads(line, parse_constant=pytest.fail)
    assert tuple(said)[:4] == logevents.HEAD
    assert said["timestamp"] == "2025-03-14T09:26:53.589793Z"


@given(_FIELDS.filter(lambda fields: fields.get("exception") is None))
def test_any_line_for_a_terminal_is_one_that_does_nothing_to_it(fields: dict[str, object]) -> None:
    assert render("console", NOW, "error", "an event", "netd", fields).isprintable()


@given(st.text(max_size=50))
def test_values_look_as_in_the_servers_lines(text: str) -> None:
    assert lineshape.quoted(text) == shape.quoted(text)
    assert (lineshape.MAX_LINE, lineshape.MAX_VALUE, lineshape.MAX_EXCEPTION) == (
        shape.MAX_LINE,
        shape.MAX_VALUE,
        shape.MAX_EXCEPTION,
    )
    fields: dict[str, object] = {"session": 5, "text": text}
    ours = render("json", NOW, "warning", "e", "netd", fields)
    head = {"timestamp": "2025-03-14T09:26:53.589793Z", "level": "warning", "event": "e", "component": "netd"}
    if text.isascii():  # beyond that they are cut at other places
        assert ours == shape.as_json(None, "warning", {**head, **fields})
    clock = render("console", NOW, "warning", "e", "netd", {}).split(" ")[0]
    theirs = shape.as_words(False)(None, "warning", {**head, "timestamp": clock, **fields})
    if text.isascii():
        assert render("console", NOW, "warning", "e", "netd", fields) == theirs


def test_level_filters() -> None:
    reading, writing = os.pipe()
    log = Log("netd", "warning", "json", writing)
    for level in ("debug", "info", "warning", "error"):
        log(level, f"of {level}")  # type: ignore[arg-type]
    os.close(writing)
    with open(reading) as said:
        assert [json.loads(line)["event"] for line in said] == ["of warning", "of error"]


def test_reader_that_sleeps_costs_lines_and_is_told() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    held = 0
    while True:
        try:
            held += os.write(writing, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(writing, True)
    log = Log("netd", "info", "json", writing)
    begun = time.monotonic()
    for _ in range(LINES_PER_WINDOW - 1):
        log("info", "nobody reads")
    assert time.monotonic() - begun < 10 * WAIT_S + 0.5
    while held:
        held -= len(os.read(reading, held))
    log("info", "somebody reads")
    os.close(writing)
    with open(reading) as said:
        lost, last = (json.loads(line) for line in said)
    assert (lost["event"], lost["lines"]) == ("lines left out", LINES_PER_WINDOW - 1)
    assert last["event"] == "somebody reads"


def test_descriptor_that_is_closed_stops_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    log = Log("netd", "info", "json", writing)
    log("error", "nobody is there")
    os.close(writing)
    log("error", "nothing is there")


FAILURES = {
    "process fails": "raise ValueError('why\\nnot')",
    "thread fails": "import threading; t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()",
    "error without a place": "class X:\n    def __del__(self): raise ValueError('gone')\nX()",
    "Python warns": "import warnings; warnings.warn('old\\nways')",
}


def failing(start: str, code: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"{start}\n{code}"], capture_output=True, text=True, timeout=60
    )
    return logevents.check(done.stderr)


@pytest.mark.parametrize("event", FAILURES)
@pytest.mark.parametrize(
    "start",
    [
        "from netns import lines; lines.configure('netd', 'info', 'json')",
        "from aero_l2.observe import log; log.configure()",
    ],
    ids=["netd", "server"],
)
def test_what_python_says_of_failures_is_one_line(start: str, event: str) -> None:
    (line,) = failing(start, FAILURES[event])
    assert line["event"] == event


@pytest.mark.parametrize(
    ("format", "environment", "style"),
    [
        ("auto", {"TERM": "xterm"}, "color"),
        ("auto", {"TERM": "xterm", "NO_COLOR": "1"}, "console"),
        ("auto", {"TERM": "dumb"}, "console"),
        ("console", {"TERM": "xterm"}, "color"),
        ("json", {"TERM": "xterm"}, "json"),
    ],
)
def test_style_on_a_terminal(format: str, environment: dict[str, str], style: str) -> None:
    code = "import os; from netns.lines import style_of; "
    code += f"print(style_of({format!r}, os.environ), file=os.fdopen(1, 'w'))"
    ours, theirs = pty.openpty()
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=theirs, check=True
    )
    os.close(ours)
    os.close(theirs)
    assert said.stdout.decode().strip() == style


def test_traceback_on_a_terminal_has_lines_of_its_own() -> None:
    text = render("color", NOW, "error", "process fails", "netd", {"exception": "Traceback\n  at \x1b[2J"})
    first, *below = re.sub(r"\x1b\[\d+m", "", text).split("\n")
    assert "process fails" in first
    assert below == ["Traceback", "  at \\x1b[2J"]
