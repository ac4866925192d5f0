"""Requests of the admin socket, and who may make them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.admin.peer import Peer, Stranger, judge
from aero_l2.admin.protocol import COMMANDS, BadRequest, parse
from aero_l2.admin.rates import Rates

DOCS = Path(__file__).parents[2] / "docs" / "admin.md"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_is_understood_as_it_is_documented(command: object) -> None:
    assert command in COMMANDS
    usage = command.usage.replace("ID", "17")  # type: ignore[attr-defined]
    request = parse(f"  {usage} \r\n".encode())
    assert request.command is command
    assert request.session == (17 if "17" in usage else 0)


def test_commands_are_documented() -> None:
    rows = re.findall(r"^\| `([a-zA-Z ]+)` \|", DOCS.read_text(), re.MULTILINE)
    assert [command.usage for command in COMMANDS] == rows[: len(COMMANDS)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"", "an empty request"),
        (b"\n", "an empty request"),
        (b"Kick 1", "unknown command 'Kick'"),
        (b"\x1b]0;x\x07", r"unknown command '\x1b]0;x\x07'"),
        (b"\xff\xfe", r"unknown command '\ufffd\ufffd'"),
        (b"x" * 200, "unknown command '" + "x" * 40 + "...'"),
        (b"kick", "usage: kick ID"),
        (b"kick 1 2", "usage: kick ID"),
        (b"drain now", "usage: drain"),
        (b"capture", "usage: capture start ID or capture stop ID"),
        (b"capture begin 1", "usage: capture start ID or capture stop ID"),
        (b"capture stop", "usage: capture stop ID"),
        (b"kick -1", "'-1' is no session"),
        (b"kick 1e3", "'1e3' is no session"),
        (b"session " + b"9" * 100, "is no session"),
    ],
)
def test_bad_request_is_told_what_is_wrong(line: bytes, said: str) -> None:
    with pytest.raises(BadRequest) as fault:
        parse(line)
    assert said in str(fault.value)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_are_told_so_in_printable_ascii(line: bytes) -> None:
    said = ""
    try:
        parse(line)
    except BadRequest as fault:
        said = str(fault)
    assert re.fullmatch("[ -~]*", said)


def test_our_own_user_and_root_may_ask_and_no_one_else() -> None:
    assert judge(0, 7, 0, 1000, is_private=True) == Peer(1000, 7)
    assert judge(0, 7, 0, 1000, is_private=False) == Peer(1000, 7)
    assert judge(65534, 7, 0, 1000, is_private=True) == Peer(0, 7)
    with pytest.raises(Stranger, match="no longer the service user's alone"):
        judge(65534, 7, 0, 1000, is_private=False)


def test_rates_are_those_since_the_look_before_the_last() -> None:
    rates = Rates()
    rates.look(10.0, {1: (0, 0, 0, 0)})
    rates.look(12.0, {1: (5, 500, 1, 100), 2: (1, 10, 0, 0)})
    assert rates.of(1, 13.0, 99.0, (30, 3000, 4, 700)) == {
        "rate_window_s": 3.0,
        "frames_rx_per_s": 10.0,
        "bytes_rx_per_s": 1000.0,
        "frames_tx_per_s": 1.3,
        "bytes_tx_per_s": 233.3,
    }
    assert rates.of(2, 13.0, 2.0, (1, 60, 0, 0))["bytes_rx_per_s"] == 50.0
    assert rates.of(3, 13.0, 0.5, (1, 60, 0, 0))["bytes_rx_per_s"] == 120.0
    assert rates.of(4, 13.0, None, (0, 0, 0, 0))["bytes_rx_per_s"] is None
