"""`aero-l2 top`, its pure parts: what two looks say, the table, keys, and what a screen holds."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.observe.metrics import Metrics
from aero_l2.top.columns import COLUMNS, SORTS, amount, duration, fitting, heading, ordered, row
from aero_l2.top.once import table
from aero_l2.top.snapshot import document
from aero_l2.top.source import Reading, parse_metrics
from aero_l2.top.state import Action, State
from aero_l2.top.terminal import decode_keys
from aero_l2.top.view import screen

STATUS = {
    "pid": 7,
    "version": "0.1.0",
    "uptime_s": 60.0,
    "ready": True,
    "unready_reason": None,
    "draining": False,
    "network_helper": True,
    "listening": ["127.0.0.1:8090"],
    "tunnels": {"active": 2, "open": 2, "kept": 0, "closing": 0},
    "setups": {"active": 1, "waiting": 0},
    "capacity": {"binding": "setting", "limits": {"setting": 64, "files": None}},
}
HOSTILE = "\x1b]0;pwned\x07\x1b[31m[bold]x[/bold]\r\n\u202e"


def session(number: int, **facts: Any) -> dict[str, Any]:
    counted = dict.fromkeys(("frames_rx", "bytes_rx", "frames_tx", "bytes_tx", "denied", "dns_denied"), 0)
    counted |= dict.fromkeys(
        ("tcp_flows", "udp_flows", "frames_dropped", "packets_dropped", "dns_queries"), 0
    )
    return {"id": number, "principal": f"p{number}", "client": "192.0.2.1", "state": "open", "age_s": 5.0,
            **counted, **facts}  # fmt: skip


def reading(at: float, *sessions: dict[str, Any], metrics: str | None = None, **status: Any) -> Reading:
    samples = None if metrics is None else parse_metrics(metrics)
    return Reading(at, 1e9 + at, {**STATUS, **status}, sessions, samples)


def only_metrics(at: float, text: str) -> Reading:
    return Reading(at, 1e9 + at, None, None, parse_metrics(text), {"socket": "no"})


def state_of(*sessions: dict[str, Any]) -> State:
    return State(shown=document(None, reading(1.0, *sessions)))


def test_rates_are_those_between_the_two_looks() -> None:
    before = reading(10.0, session(1, bytes_rx=100, frames_tx=4))
    now = reading(12.5, session(1, bytes_rx=600, frames_tx=9), session(2, bytes_rx=50, bytes_rx_per_s=7.0))
    shown = document(before, now)
    first, second = shown["sessions"]
    assert (first["bytes_rx_per_s"], first["frames_tx_per_s"], first["rate_window_s"]) == (200.0, 2.0, 2.5)
    assert second["bytes_rx_per_s"] == 7.0
    assert (shown["interval_s"], shown["totals"]["bytes_rx"], shown["totals"]["of"]) == (2.5, 650, "sessions")


def test_server_that_was_started_anew_has_no_rates_yet() -> None:
    before = reading(10.0, session(1, bytes_rx=100))
    shown = document(before, reading(12.0, session(1, bytes_rx=900), pid=8))
    assert shown["interval_s"] is None
    assert "bytes_rx_per_s" not in shown["sessions"][0]
    text = (
        "# TYPE l2_sessions counter\nl2_sessions_total {}\n# TYPE l2_bytes_rx counter\nl2_bytes_rx_total {}\n"
    )
    shown = document(only_metrics(1.0, text.format(50, 9000)), only_metrics(2.0, text.format(1, 9500)))
    assert shown["totals"]["bytes_rx_per_s"] is None


def test_metrics_alone_are_enough_for_totals() -> None:
    metrics = Metrics()
    metrics.bytes_tx.value += 1000
    before = only_metrics(1.0, metrics.render().decode())
    metrics.bytes_tx.value += 3000
    metrics.sessions_active.inc(3)
    metrics.policy_denied["query"].inc(8)
    for _ in range(99):
        metrics.loop_lag_seconds.observe(0.002)
    metrics.loop_lag_seconds.observe(0.2)
    metrics.capacity_tunnels["setting"].set(64)
    metrics.capacity_tunnels["files"].set(float("inf"))
    shown = document(before, only_metrics(3.0, metrics.render().decode()))
    totals = shown["totals"]
    assert (totals["bytes_tx"], totals["bytes_tx_per_s"], totals["denied_per_s"]) == (4000, 1500.0, 4.0)
    assert (totals["sessions"], totals["of"]) == (3, "the process")
    assert shown["loop_lag"] == {"mean_ms": 3.98, "p99_below_ms": 2.5}
    assert (shown["capacity"]["limits"]["setting"], shown["capacity"]["limits"]["files"]) == (64, None)
    assert (shown["server"], shown["sessions"]) == (None, None)


def test_nothing_of_a_hostile_principal_reaches_a_terminal() -> None:
    hostile = session(1, principal=HOSTILE, client=HOSTILE, state=HOSTILE)
    shown = document(None, reading(1.0, hostile, unready_reason=HOSTILE, ready=False, version=HOSTILE))
    state = State(shown=shown)
    lines = [line.plain for line in screen(state, 200, 20, 1.0)] + list(table(shown, "rate", 200))
    assert all(re.fullmatch("[ -~]*", line) for line in lines)
    assert any("[bold]x[/bold]" in line for line in lines), "markup is shown, not followed"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (1000, "1.0k"), (12_345, "12.3k"), (99_960, "100k"), (1_500_000, "1.5M"),
     (None, "-"), (9.4, "9"), (10**18, "1000P")],
)  # fmt: skip
def test_amounts(value: float | None, text: str) -> None:
    assert amount(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.9, "0s"), (59.9, "59s"), (60, "1m00s"), (3661, "1h01m"), (90_000, "1d01h")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(0, 10**14))
def test_amounts_fit_their_columns(value: float) -> None:
    assert len(amount(value)) <= 5


@given(st.integers(1, 300))
def test_lines_fit_any_width_and_the_most_important_columns_stay_longest(width: int) -> None:
    columns, spare = fitting(width)
    facts = session(123_456, principal="p" * 300, bytes_rx=10**15)
    assert len(row(columns, spare, facts)) <= max(width, COLUMNS[0].width)
    assert len(heading(columns, spare, "denied")) <= max(width, COLUMNS[0].width)
    assert columns[0].title == "ID"
    if width >= 80:
        assert {"PRINCIPAL", "UP/s", "DOWN/s*"} <= {
            f"{c.title}*" if c.sort == "rate" else c.title for c in columns
        }


@given(st.integers(1, 150), st.integers(1, 60), st.integers(0, 40), st.booleans())
def test_screen_never_exceeds_the_terminal(width: int, height: int, count: int, helping: bool) -> None:
    state = state_of(*(session(number, principal="x" * 80) for number in range(count)))
    state.help = helping
    lines = screen(state, width, height, 1.0)
    assert len(lines) == height
    assert all(line.cell_len <= width for line in lines)


@pytest.mark.parametrize("sort", SORTS)
def test_sessions_are_sorted_largest_first_and_the_other_way_round(sort: str) -> None:
    fields = {
        "rate": "bytes_tx_per_s",
        "bytes": "bytes_rx",
        "denied": "denied",
        "flows": "tcp_flows",
        "age": "age_s",
    }
    listed = [
        session(1, **{fields[sort]: 5}),
        session(2, **{fields[sort]: 9}),
        session(3, **{fields[sort]: 5}),
    ]
    assert [one["id"] for one in ordered(listed, sort)] == [2, 1, 3]
    assert [one["id"] for one in ordered(listed, sort, reverse=True)] == [1, 3, 2]


def test_selection_follows_its_session_and_scrolls_with_it() -> None:
    state = state_of(*(session(number, bytes_rx=1000 - number) for number in range(1, 101)))
    state.sort = "bytes"
    for _ in range(30):
        state.key("down")
    assert state.selected == 31
    shown = "\n".join(line.plain for line in screen(state, 120, 24, 1.0))
    assert "p31" in shown
    assert "p1 " not in shown
    state.key("end")
    assert state.selected == 100
    state.key("home")
    assert state.selected == 1


def test_kick_needs_a_confirmation() -> None:
    state = state_of(session(4), session(9))
    state.key("down")
    assert state.key("K") is None
    assert state.kicking == 9
    assert "close session 9?" in screen(state, 100, 10, 1.0)[-1].plain
    assert state.key("q") is None
    assert (state.kicking, state.message) == (None, "not closed")
    state.key("K")
    assert state.key("y") is Action.KICK
    assert state.kicking == 9


def test_keys() -> None:
    state = state_of(session(1))
    assert state.key("q") is Action.QUIT
    assert state.key(" ") is Action.NOW
    for key, sort in (
        ("b", "bytes"),
        ("d", "denied"),
        ("f", "flows"),
        ("a", "age"),
        ("r", "rate"),
        ("s", "bytes"),
    ):
        state.key(key)
        assert state.sort == sort
    state.key("p")
    assert state.paused
    state.key("?")
    assert state.help
    state.key("q")
    assert not state.help


@given(st.text(max_size=3))
def test_no_key_is_too_much(key: str) -> None:
    state = State()
    state.key(key)
    screen(state, 80, 24, 1.0)


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1bOBx", ["up", "down", "x"]),
        (b"\x1b[5~\x1b[6~\x1b[H\x1b[F", ["pageup", "pagedown", "home", "end"]),
        (b"\x1b[200~q", ["q"]),
        (b"\x1b[1;5Cq", ["q"]),
        (b"\x1b", []),
    ],
)
def test_keys_are_decoded(data: bytes, keys: list[str]) -> None:
    assert decode_keys(data) == keys


@given(st.binary(max_size=40))
def test_any_input_is_decoded(data: bytes) -> None:
    assert all(decode_keys(data))


def test_what_is_missing_is_said() -> None:
    shown = document(None, only_metrics(1.0, "x 1\n"))
    assert "without socket: no" in "\n".join(table(shown, "rate", 200))
