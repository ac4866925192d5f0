"""What a line of the server's log may be: bounded, on one line, and nothing in it that acts or is secret."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from structlog.typing import EventDict

from aero_l2.observe import log
from aero_l2.observe.outlet import WAIT_S, Outlet
from aero_l2.observe.shape import MAX_FIELDS, MAX_ITEMS, MAX_LINE, as_json, as_words, scrub
from aero_l2.tasks import concerns, spawn, subject

CANARY = "cAnArY7"
_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=3000),
    st.text(alphabet="\x00\x1b\x7f\x85\u2028\u202e\ud800\U0001f40d\"'\\= \r\n", max_size=300),
    st.lists(st.text(max_size=2000), max_size=40),
    st.binary(max_size=50),
)
_LINES = st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), _VALUES, max_size=60).map(
    lambda fields: {**fields, "event": "x", "level": "info", "timestamp": "12:00:00.000000"}
)


@given(_LINES)
def test_any_line_is_one_object_of_json_that_a_pipe_takes_whole(line: EventDict) -> None:
    text = as_json(None, "info", line)
    assert len(text) < MAX_LINE
    assert text.isascii()
    assert text.isprintable()
    said = json.loads(text, parse_constant=pytest.fail)
    assert list(said)[:3] == ["timestamp", "level", "event"]
    assert len(said) <= MAX_FIELDS
    assert all(len(value) <= MAX_ITEMS + 1 for value in said.values() if isinstance(value, list))
    text.encode().decode()


@given(_LINES.filter(lambda line: line.get("exception") is None), st.booleans())
def test_any_line_for_a_terminal_is_one_that_does_nothing_to_it(line: EventDict, colors: bool) -> None:
    text = as_words(colors)(None, "info", line)
    assert re.sub(r"\x1b\[\d+m", "", text).isprintable()
    assert ("\x1b" in text) is colors


def test_exceptions_keep_their_end_and_are_one_field() -> None:
    text = "".join(f"  line {n}\n" for n in range(2000)) + f"ValueError: \x1b[2J GET /l2?token={CANARY} why"
    line: EventDict = {"event": "x", "level": "error", "timestamp": "t", "exception": text}
    shown = json.loads(as_json(None, "error", dict(line)))["exception"]
    assert shown.endswith("why")
    words = as_words(False)(None, "error", dict(line))
    assert all(part.isprintable() for part in words.split("\n"))
    assert CANARY not in shown + words


@pytest.mark.parametrize(
    "text",
    [
        f"< GET /l2?token={CANARY} HTTP/1.1",
        f"GET /l2?a=b&apiKey={CANARY}",
        f"'/eth?x={CANARY}&y=z'",
        f"Sec-WebSocket-Protocol: aero-l2-tunnel-v1, aero-l2-token.{CANARY}",
        f"Cookie: a=b; aero_session={CANARY}; c=d",
        f"Authorization: Bearer {CANARY}",
        f"authorization: bearer {CANARY}",
        f"GET /v86/{CANARY} HTTP/1.1",
    ],
)
def test_what_may_be_a_credential_is_taken_out_of_what_libraries_say(text: str) -> None:
    assert CANARY not in scrub(text)
    assert scrub("nothing? of that, 1 = 1") == "nothing? of that, 1 = 1"


# --- the process's log -----------------------------------------------------------------------------------


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A log of this process; what it was before is restored."""
    root, hooks = logging.getLogger(), (sys.excepthook, sys.unraisablehook)
    handlers, level, limits = root.handlers, root.level, log._repeats
    stream, log._repeats = io.StringIO(), log.Repeats()
    try:
        yield stream
    finally:
        structlog.reset_defaults()
        logging.captureWarnings(False)
        root.handlers, root.level, log._repeats = handlers, level, limits
        sys.excepthook, sys.unraisablehook = hooks


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("format", ["json", "console"])
@pytest.mark.parametrize("level", log.LEVELS)
def test_query_strings_are_nowhere_at_any_level(stream: io.StringIO, level: str, format: str) -> None:
    """Also where somebody had switched a library's own logging on."""
    log.configure(level, format, stream)
    names = ("asyncio", "websockets", "websockets.server", "websockets.client", "aero_l2.wire.websockets")
    before = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            library = logging.getLogger(name)
            library.setLevel(logging.DEBUG)
            for rank in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
                library.log(rank, "< GET %s HTTP/1.1", f"/l2?token={CANARY}&apiKey={CANARY}")
                library.log(rank, "< Sec-WebSocket-Protocol: %s", f"a, aero-l2-token.{CANARY}")
                library.log(rank, "Executing %r took 1 s", f"<Handle f(b'GET /l2?x={CANARY} HT...')>")
            try:
                raise ValueError(f"bad request: /l2?token={CANARY}")
            except ValueError:
                library.exception("/eth/?apiKey=%s", CANARY)
        warnings.warn(f"deprecated: /l2?token={CANARY}", stacklevel=1)
    finally:
        for name, rank in before.items():
            logging.getLogger(name).setLevel(rank)
    shown = stream.getvalue()
    assert "library says" in shown
    assert CANARY not in shown


def test_debug_lines_of_libraries_are_never_written(stream: io.StringIO) -> None:
    log.configure("debug", "json", stream)
    library = logging.getLogger("websockets.test")
    library.setLevel(logging.DEBUG)
    library.debug("a frame's payload")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_failures_of_the_loop_are_one_line_without_what_callbacks_got(
    stream: io.StringIO, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    log.configure("info", "json", stream)

    def fails(data: bytes) -> None:
        raise ValueError("of a callback")

    async def act() -> None:
        running = asyncio.get_running_loop()
        log.report_failures(running)
        running.call_soon(fails, f"/l2?token={CANARY}".encode())
        running.call_exception_handler({"message": f"odd /l2?a={CANARY}", "handle": object()})
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(act())
    told = {line["event"]: line for line in lines_of(stream)}
    assert set(told) == {"event loop fails", "event loop complains"}
    assert "ValueError: of a callback" in told["event loop fails"]["exception"]
    assert CANARY not in stream.getvalue().replace('fails(f"/l2?token', "")


async def test_failed_task_says_what_it_was_about(stream: io.StringIO) -> None:
    log.configure("info", "json", stream)

    async def fails() -> None:
        concerns(client="192.0.2.1", peer="192.0.2.1:5", principal=None)
        concerns(**subject(), session=7)
        raise ValueError("why")

    async def of_nobody() -> None:
        raise ValueError("why not")

    for task in (spawn(fails(), name="one"), spawn(of_nobody(), name="other")):
        await asyncio.wait([task])
    await asyncio.sleep(0)
    one, other = lines_of(stream)
    assert (one["session"], one["client"], one["peer"]) == (7, "192.0.2.1", "192.0.2.1:5")
    assert "principal" not in one
    assert "session" not in other
    assert subject() == {}


def test_flood_of_exceptions_and_of_libraries_is_counted(stream: io.StringIO) -> None:
    log.configure("info", "json", stream)
    ours = structlog.get_logger(component="server")
    for number in range(100):
        logging.getLogger("asyncio").warning("socket.send() raised exception %d.", number)
        try:
            raise ValueError(number)
        except ValueError:
            ours.error("task failed", exc_info=True)
        ours.info("an ordinary line")
    counts = [line["event"] for line in lines_of(stream)]
    assert (counts.count("library says"), counts.count("task failed")) == (10, 10)
    assert counts.count("an ordinary line") == 100
    ends = log._repeats._limit.ended(float("inf"))
    log._repeats._due += ends
    ours.info("a minute later")
    told = {line["of"]: line["lines"] for line in lines_of(stream) if line["event"] == "lines left out"}
    assert told == {"asyncio": 90, "task failed": 90}


# --- where it goes ---------------------------------------------------------------------------------------


def test_reader_that_sleeps_costs_lines_and_no_time_and_is_told() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as reader, open(writing, "w") as stream:
        outlet = Outlet(stream)
        outlet.ahead = lambda lost: [f"{lost} lost\n"] if lost else []
        line = "x" * (MAX_LINE - 1) + "\n"
        begun = time.monotonic()
        for _ in range(1000):
            outlet.write(line)
        assert time.monotonic() - begun < 100 * WAIT_S  # 2 s if each of them waited
        os.set_blocking(reading, False)
        held = b""
        while data := reader.read(1 << 20):
            held += data
        whole = held.decode().splitlines(keepends=True)
        assert set(whole) == {line}
        outlet.write("after\n")
        assert reader.read(1 << 20) == f"{1000 - len(whole)} lost\nafter\n".encode()


def test_reader_that_is_gone_costs_lines_only() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stream:
        outlet = Outlet(stream)
        for _ in range(3):
            outlet.write("line\n")


def test_line_after_a_torn_one_begins_anew(tmp_path: Path) -> None:
    """A disk that becomes full takes a part of a line."""
    path = tmp_path / "log"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with path.open("w") as stream:
            outlet = Outlet(stream)
            outlet.ahead = lambda lost: [f"{lost} lost\n"] if lost else []
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
            for _ in range(3):
                outlet.write("a line\n")
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            outlet.write("the end\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_text() == "a line\na l\n2 lost\nthe end\n"


SAYS = (
    "import structlog; from aero_l2.observe import log; log.configure(); "
    "structlog.get_logger(component='door').warning('an event', text='two words', empty='')"
)


def on_terminal(**environment: str) -> str:
    """What a process says whose stderr is a terminal."""
    ours, theirs = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-c", SAYS], env={**os.environ, **environment}, stderr=theirs, check=True
        )
        return os.read(ours, 1 << 16).decode().replace("\r\n", "\n")
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(
    ("environment", "colors"),
    [
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb", "NO_COLOR": ""}, False),
    ],
)
def test_terminal_gets_words_and_colours_unless_it_wants_none(
    environment: dict[str, str], colors: bool
) -> None:
    said = on_terminal(**environment)
    assert ("\x1b[" in said) is colors
    plain = re.sub(r"\x1b\[\d+m", "", said)
    pattern = r'\d\d:\d\d:\d\d\.\d{6} \[warning  \] an event {22} text="two words" empty="" component=door\n'
    assert re.fullmatch(pattern, plain)
