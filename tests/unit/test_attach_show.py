"""What is told of a connection: rates, the live line, log lines, words beside a command."""

from __future__ import annotations

import io
import threading

from structlog.testing import capture_logs

from aero_l2.attach.aside import Aside
from aero_l2.attach.rates import Rates, View, copied, duration, rates, status_line, summary
from aero_l2.attach.relay import Counters
from aero_l2.attach.show import CONNECTING, OPEN, Lines, LiveLine, Log, Silent, Value, sentence

COUNTERS = Counters(
    frames_sent=10, bytes_sent=1_000_000, frames_received=20, bytes_received=500_000, dropped_no_tunnel=3
)


def view(counters: Counters = COUNTERS) -> View:
    return View(counters, rtt_s=0.00234, since_s=125.9, has_machine=True, state="open")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_rates_are_differences_over_time() -> None:
    seen = rates(Counters(), COUNTERS, 2.0)
    assert (seen.sent_fps, seen.sent_mbit_s) == (5.0, 4.0)
    assert (seen.received_fps, seen.received_mbit_s) == (10.0, 2.0)


def test_rates_without_time_are_none_at_all() -> None:
    assert rates(Counters(), COUNTERS, 0.0) == rates(COUNTERS, COUNTERS, 1.0)


def test_a_copy_of_the_counters_stands_still() -> None:
    counters = Counters()
    before = copied(counters)
    counters.frames_sent += 1
    assert before.frames_sent == 0


def test_every_drop_is_in_the_sum() -> None:
    names = [name for name in Counters.__slots__ if name.startswith("dropped_")]
    assert Counters(**dict.fromkeys(names, 1)).dropped == len(names) == 5


def test_the_status_line_has_state_rates_drops_and_round_trip() -> None:
    assert status_line(view(), rates(Counters(), COUNTERS, 1.0)) == (
        "open 2m05s · dropped 3 · RTT 2.3 ms · ↑8.0 ↓4.0 Mbit/s · ↑10 ↓20/s"
    )


def test_the_status_line_of_a_busy_machine_fits_80_columns() -> None:
    busy = View(
        Counters(dropped_queue_full=12_345_678), rtt_s=1.2, since_s=86_399, has_machine=True, state="open"
    )
    line = status_line(busy, Rates(9_999, 99.9, 20_400, 230.4))
    assert line == "open 23h59m · dropped 12M · RTT 1200 ms · ↑99.9 ↓230 Mbit/s · ↑9999 ↓20k/s"
    assert len(line) <= 80


def test_the_status_line_says_when_there_is_no_machine_and_no_tunnel() -> None:
    away = View(Counters(), rtt_s=None, since_s=None, has_machine=False, state="waiting")
    assert status_line(away, rates(Counters(), Counters(), 1.0)) == "waiting · no machine · dropped 0"


def test_the_summary_names_the_drops_there_were() -> None:
    told = summary(view(), rates(Counters(), COUNTERS, 1.0))
    assert told["dropped"] == told["dropped_no_tunnel"] == 3
    assert told["rtt_ms"] == 2.3
    assert "dropped_queue_full" not in told


def test_spans_of_time_are_short() -> None:
    assert [duration(s) for s in (0.2, 59.9, 60, 3599, 3600, 100_000)] == [
        *("0s", "59s", "1m00s", "59m59s", "1h00m", "27h46m")
    ]


def test_a_change_is_one_line_of_words() -> None:
    said = sentence("no tunnel", {"why": "HTTP 503", "attempt": 2, "again_in_s": 0.7})
    assert said == "no tunnel: HTTP 503 (attempt 2, again in 0.7 s)"


def test_beside_a_command_nothing_is_said_while_all_goes_well() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.change(CONNECTING, why="ws://lab/l2")
    lines.change(OPEN)
    assert stream.getvalue() == ""
    lines.change("no tunnel", why="lost")
    lines.change(OPEN)
    lines.change(CONNECTING)
    assert stream.getvalue() == "aero-l2: no tunnel: lost\naero-l2: tunnel open\n"


def test_a_reader_that_is_gone_ends_nothing() -> None:
    told: list[str] = []

    class Gone(Silent):
        def change(self, event: str, **facts: Value) -> None:
            told.append(event)
            raise BrokenPipeError

    with Aside(Gone()) as aside:
        aside.change("one")
        aside.change("two")
    assert told == ["one", "two"]
    assert not aside.is_stuck


def test_a_terminal_that_takes_nothing_holds_nobody_up() -> None:
    taken = threading.Event()

    class Stuck(Silent):
        def change(self, event: str, **facts: Value) -> None:
            taken.wait()

    with Aside(Stuck(), grace_s=0.01) as aside:
        for _ in range(10_000):
            aside.change("event")
    assert aside.is_stuck
    taken.set()


def test_the_log_has_a_line_for_each_change_and_summaries_as_often_as_asked() -> None:
    with capture_logs() as logged:
        log = Log(report_s=0.001)
        log.change(OPEN)
        while len(logged) < 2:
            log.look(view())
    assert [line["event"] for line in logged] == [OPEN, "summary"]
    assert logged[1]["frames_sent"] == 10


def test_the_log_has_no_summaries_where_none_are_asked_for() -> None:
    with capture_logs() as logged:
        Log(report_s=0).look(view())
    assert logged == []


def test_the_terminal_gets_a_line_that_changes_with_the_changes_above_it() -> None:
    terminal = Terminal()
    with LiveLine(terminal) as live:
        live.change("no tunnel", why="[bold]it said[/bold] \N{BULLET}")
        while "Mbit/s" not in terminal.getvalue():
            live.look(view())
    shown = terminal.getvalue()
    assert "no tunnel: [bold]it said[/bold]" in shown, "what a server says is no markup"
    assert "\x1b[?25l" in shown
    assert "\x1b[?25h" in shown, "the cursor is shown again"
