"""What the supervisor lets through of the server's words, and what it makes of systemd's variables."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netns import control
from netns.activation import handed_over
from netns.control import Word, decode, encode, milliseconds
from netns.errors import LaunchError
from netns.notify import Notifier, watchdog_interval_s
from netns.report import Report

_PID = 4321


@given(st.sampled_from(Word), st.text())
def test_what_is_encoded_is_decoded_and_one_line_of_printable_ascii(word: Word, text: str) -> None:
    saying = encode(word, text)
    assert len(saying) <= control.LONGEST
    decoded = decode(saying)
    assert decoded is not None
    assert decoded[0] is word
    assert decoded[1].isascii()
    assert decoded[1] == "" or decoded[1].isprintable()


@given(st.binary(max_size=600))
def test_any_bytes_of_the_server_are_a_word_or_nothing(saying: bytes) -> None:
    decoded = decode(saying)
    assert decoded is None or (decoded[1].isascii() and (decoded[1] == "" or decoded[1].isprintable()))


@given(st.binary(max_size=600) | st.builds(encode, st.sampled_from(Word), st.text()), st.floats(0, 1e9))
def test_whatever_the_server_says_systemd_gets_no_other_assignment(saying: bytes, now: float) -> None:
    """One that has been taken over must not name another main process, or hand descriptors over."""
    told = "\n".join(Report(30.0).said(saying, now)).splitlines()
    names = {line.partition("=")[0] for line in told}
    assert names <= {
        "READY",
        "RELOADING",
        "MONOTONIC_USEC",
        "STOPPING",
        "EXTEND_TIMEOUT_USEC",
        "STATUS",
        "WATCHDOG",
    }


@pytest.mark.parametrize(
    "saying",
    [b"", b"status a\nMAINPID=1", b"status \x1b[31m", b"STATUS x", b"ready\n", b"status " + b"x" * 301],
)
def test_what_is_no_saying_is_nothing(saying: bytes) -> None:
    assert decode(saying) is None
    assert Report(1.0).said(saying, 0.0) == ()


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("600000", 600_000), ("999999999", 999_999_999)])
def test_milliseconds_are_read(text: str, number: int) -> None:
    assert milliseconds(text) == number


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1e3", "²", "1000000000", "1 "])
def test_other_texts_are_no_milliseconds(text: str) -> None:
    assert milliseconds(text) is None
    assert Report(None).said(b"stopping " + text.encode("latin-1"), 0.0) == ()


def test_ready_is_told_once_and_again_after_each_reload() -> None:
    report = Report(None)
    assert report.said(encode(Word.RELOADING), 1.0) == ()  # of a service that is starting it says nothing
    assert report.said(encode(Word.RELOADED), 2.0) == ()
    assert report.said(encode(Word.READY), 3.0) == ("READY=1",)
    assert report.said(encode(Word.READY), 4.0) == ()
    assert report.said(encode(Word.RELOADING), 5.5) == ("RELOADING=1", "MONOTONIC_USEC=5500000")
    assert report.said(encode(Word.RELOADED), 6.0) == ("READY=1",)
    assert report.said(encode(Word.STOPPING, "3000"), 7.0) == ("STOPPING=1", "EXTEND_TIMEOUT_USEC=13000000")


def test_one_question_at_a_time_and_three_in_an_interval() -> None:
    report = Report(30.0)
    assert report.question_due is None  # systemd does not watch a service that is starting
    report.said(encode(Word.READY), 100.0)
    assert report.question_due == 100.0
    report.asked()
    assert report.question_due is None  # until it is answered, however late
    assert report.said(encode(Word.WELL), 107.0) == ("WATCHDOG=1",)
    assert report.question_due == 117.0


def test_without_a_watchdog_nothing_is_asked() -> None:
    report = Report(None)
    report.said(encode(Word.READY), 100.0)
    assert report.question_due is None
    assert report.said(encode(Word.WELL), 107.0) == ()
    assert report.question_due is None


@pytest.mark.parametrize(
    ("variables", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(_PID)}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog_interval(variables: dict[str, str], interval_s: float | None) -> None:
    assert watchdog_interval_s(variables, _PID) == interval_s


def test_listener_that_began_anew_is_told(tmp_path: Path) -> None:
    path, said = str(tmp_path / "notify"), list[str]()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as first:
        first.bind(path)
        notifier = Notifier(path, said.append)
        notifier.tell("READY=1", "STATUS=fine")
        assert first.recv(100) == b"READY=1\nSTATUS=fine"
    os.unlink(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as second:
        second.bind(path)
        notifier.tell("STOPPING=1")
        assert second.recv(100) == b"STOPPING=1"
    assert not said


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "@nobody-has-this-name", "vsock:2:1"])
def test_nobody_to_tell_is_one_line_at_most(address: str) -> None:
    said: list[str] = []
    notifier = Notifier(address, said.append)
    assert len(said) == bool(address)
    notifier.tell("READY=1")
    notifier.tell("STOPPING=1")
    assert len(said) == bool(address)


def test_sockets_of_another_process_are_not_ours() -> None:
    assert handed_over({}, _PID) == []
    assert handed_over({"LISTEN_FDS": "1"}, _PID) == []
    assert handed_over({"LISTEN_PID": "1", "LISTEN_FDS": "1"}, _PID) == []
    assert handed_over({"LISTEN_PID": str(_PID), "LISTEN_FDS": "0"}, _PID) == []


@pytest.mark.parametrize("count", ["", "-1", "many", "65", "1" * 30])
def test_number_of_sockets_is_one(count: str) -> None:
    with pytest.raises(LaunchError, match="LISTEN_FDS"):
        handed_over({"LISTEN_PID": str(_PID), "LISTEN_FDS": count}, _PID)
