"""The audit log without a proxy: what gets a line, how lines get to disk, and what happens if they do not."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.audit import Sheet, check, schema
from support.wait import wait_until

from aero_l2.observe.audit import flows, lines
from aero_l2.observe.audit.denials import MAX_DESTINATIONS, Denials
from aero_l2.observe.audit.files import LogFile, Stdout, Unusable
from aero_l2.observe.audit.log import AuditLog
from aero_l2.observe.audit.session import MAX_NAMES, SessionAudit
from aero_l2.observe.audit.tally import MAX_KEYS, Rate, Tally
from aero_l2.observe.audit.writer import Writer
from aero_l2.observe.metrics import Metrics


def test_times_are_rfc_3339_in_utc_with_milliseconds() -> None:
    assert lines.stamp(0) == "1970-01-01T00:00:00.000Z"
    assert lines.stamp(1_700_000_000.9996) == "2023-11-14T22:13:21.000Z"


def test_every_kind_of_line_is_published() -> None:
    published = [ref["$ref"].rpartition("/")[2] for ref in schema()["oneOf"]]
    assert published == [*schema()["$defs"]]
    assert sorted(published) == sorted(lines.KINDS)
    endings = schema()["$defs"]["flow"]["properties"]["ended"]["enum"]
    assert sorted(endings) == sorted(get_args(flows.Ending))


# -- where lines go


def test_file_is_for_its_owner_alone_and_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    for text in (b"one\n", b"two\n"):
        list(LogFile(str(path), 0, 1).write([text]))
    assert path.read_bytes() == b"one\ntwo\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_file_is_rotated_by_size_between_lines_and_the_newest_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    (tmp_path / "audit.log.7").write_bytes(b"not in a row, so not one of ours\n")
    (tmp_path / "audit.log.3").write_bytes(b"of a time when more were kept\n")
    file = LogFile(str(path), 10, 3)
    assert sum(file.write([b"%04d\n" % number for number in range(11)])) == 11
    assert path.read_bytes() == b"0010\n"
    assert (tmp_path / "audit.log.1").read_bytes() == b"0008\n0009\n"
    assert (tmp_path / "audit.log.2").read_bytes() == b"0006\n0007\n"
    assert sorted(found.name for found in tmp_path.iterdir()) == [
        *("audit.log", "audit.log.1", "audit.log.2", "audit.log.7"),
    ]


def test_one_file_alone_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    list(LogFile(str(path), 10, 1).write([b"aaaa\n", b"bbbb\n", b"cccc\n"]))
    assert [found.read_bytes() for found in tmp_path.iterdir()] == [b"cccc\n"]


def test_file_that_was_moved_away_is_written_until_reopened(tmp_path: Path) -> None:
    path, moved = tmp_path / "audit.log", tmp_path / "moved"
    file = LogFile(str(path), 0, 1)
    list(file.write([b"one\n"]))
    path.rename(moved)
    list(file.write([b"two\n"]))
    file.reopen()
    list(file.write([b"three\n"]))
    assert (moved.read_bytes(), path.read_bytes()) == (b"one\ntwo\n", b"three\n")


def test_file_that_was_emptied_by_another_program_goes_on_from_there(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    file = LogFile(str(path), 10, 3)
    list(file.write([b"aaaa\n", b"bbbb\n"]))
    os.truncate(path, 0)
    list(file.write([b"cccc\n"]))
    assert [found.read_bytes() for found in tmp_path.iterdir()] == [b"cccc\n"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.symlink_to("/etc/passwd"), "symbolic link"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: os.mkfifo(path), "cannot write"),
        (lambda path: path.parent.rmdir(), "no such file"),
    ],
    ids=["link", "folder", "pipe", "nowhere"],
)
def test_what_is_no_file_is_refused_in_words(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    path = tmp_path / "folder/audit.log"
    path.parent.mkdir()
    make(path)
    with pytest.raises(Unusable, match=said) as refused:
        LogFile(str(path), 0, 1)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    """RLIMIT_FSIZE cuts a write as a full disk does."""
    path = tmp_path / "audit.log"
    outcome: list[bool] = []
    child = os.fork()
    if child == 0:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (12, 12))
        try:
            list(LogFile(str(path), 0, 1).write([b"aaaa\n", b"bbbb\n", b"cccc\n"]))
        except OSError:
            os._exit(42)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    assert path.read_bytes() == b""
    assert not outcome


def test_stdout_gets_whole_lines_in_pieces_that_nothing_is_mixed_into() -> None:
    read, write = os.pipe()
    texts = [b"%04d" % number + b"x" * 995 + b"\n" for number in range(9)]
    assert list(Stdout(write).write(texts)) == [4, 4, 1]
    assert os.read(read, 65536) == b"".join(texts)
    for descriptor in (read, write):
        os.close(descriptor)


def test_stdout_that_blocks_nobody_gets_each_line_once() -> None:
    """A socket, as of a service manager, may take a part of a chunk."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    texts = [b"%04d" % number + b"x" * 995 + b"\n" for number in range(400)]
    got = bytearray()

    def read() -> None:
        while piece := theirs.recv(3000):
            got.extend(piece)
            time.sleep(0.001)

    reader = threading.Thread(target=read)
    reader.start()
    assert sum(Stdout(ours.fileno()).write(texts)) == 400
    ours.close()
    reader.join(10)
    theirs.close()
    assert bytes(got) == b"".join(texts)


def test_file_or_folder_that_others_may_touch_is_a_doubt(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "audit.log"
    assert list(LogFile(str(path), 0, 1).doubts()) == []
    path.chmod(0o640)
    (said,) = LogFile(str(path), 0, 1).doubts()
    assert said.startswith(f"AERO_L2_AUDIT_LOG: {path} was there, and others than user ")
    path.chmod(0o600)
    os.chown(path, 12345, -1)
    assert len(list(LogFile(str(path), 0, 1).doubts())) == 1
    os.chown(path, os.geteuid(), -1)
    tmp_path.chmod(0o777)
    (said,) = LogFile(str(path), 0, 1).doubts()
    assert f"others may write in {tmp_path}" in said
    assert list(LogFile("/dev/null", 0, 1).doubts()) == list(Stdout().doubts()) == []


# -- the thread that writes


class Disk:
    """An output that can be full."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.attempts = 0
        self.is_full = False
        self.reopened = 0
        self.gate = threading.Event()
        self.gate.set()

    def write(self, texts: Sequence[bytes]) -> Iterator[int]:
        for text in texts:
            self.gate.wait(30)
            self.attempts += 1
            if self.is_full:
                raise OSError(28, "No space left on device")
            self.lines.append(text)
            yield 1

    def doubts(self) -> Iterator[str]:
        return iter(())

    def reopen(self) -> None:
        self.reopened += 1


class Heard:
    """What a writer told."""

    def __init__(self) -> None:
        self.lost = 0
        self.failures: list[OSError | None] = []

    def lose(self, lines: int) -> None:
        self.lost += lines


def writer(disk: Disk, heard: Heard, max_lines: int = 100) -> Writer:
    return Writer(
        disk,
        lost=heard.lose,
        lost_line=lambda count: b"lost %d" % count,
        failed=heard.failures.append,
        max_lines=max_lines,
    )


def test_all_lines_are_written_in_order_before_the_end() -> None:
    disk, heard = Disk(), Heard()
    written = writer(disk, heard, 5000)
    texts = [b"%d" % number for number in range(2000)]
    assert all(written.put(text) for text in texts)
    assert written.close() == 0
    assert (disk.lines, heard.lost, heard.failures) == (texts, 0, [])


def test_lines_wait_for_a_full_disk_and_what_does_not_fit_is_said() -> None:
    disk, heard = Disk(), Heard()
    disk.is_full = True
    written = writer(disk, heard)
    for number in range(130):
        written.put(b"%d" % number)
    wait_until(lambda: disk.attempts >= 2, "it is tried again", 20)
    assert len(heard.failures) == 1, "said once"
    disk.is_full = False
    wait_until(lambda: len(disk.lines) == 100, "all that waited", 20)
    written.put(b"later")
    assert written.close() == 0
    assert disk.lines == [*(b"%d" % number for number in range(100)), b"lost 30", b"later"]
    assert heard.lost == 30
    assert heard.failures[1:] == [None]


def test_disk_that_stays_full_does_not_hold_up_the_end() -> None:
    disk, heard = Disk(), Heard()
    disk.is_full = True
    written = writer(disk, heard)
    for number in range(7):
        written.put(b"%d" % number)
    assert written.close() == 7


def test_reader_that_takes_nothing_holds_the_end_up_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aero_l2.observe.audit.writer.CLOSE_S", 0.5)
    disk, heard = Disk(), Heard()
    disk.gate.clear()
    written = writer(disk, heard)
    assert all(written.put(b"%d" % number) for number in range(3))
    assert written.close() == 3
    disk.gate.set()


def test_reopening_happens_between_lines() -> None:
    disk, heard = Disk(), Heard()
    written = writer(disk, heard)
    written.put(b"one")
    written.reopen()
    wait_until(lambda: disk.reopened == 1, "it is reopened", 10)
    assert written.close() == 0


# -- what gets a line


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["denied_port", "denied_host", "limit_tcp"]), st.integers(1, 300)),
            st.tuples(st.sampled_from(["copies", "name", "read", "sum"]), st.integers(0, 40)),
        )
    )
)
def test_lines_about_refused_packets_add_up_to_the_counters(events: list[tuple[str, int]]) -> None:
    """A copy of a packet comes before its counter is read; lines are written at any time."""
    said, now = Denials(0.0), 0.0
    counters = {"denied_port": 0, "denied_host": 0, "limit_tcp": 0, "flows_begun": 12}
    told = names = 0
    copies: list[tuple[str, int]] = []

    def read() -> None:
        nonlocal told
        told += sum(said.is_first(rule, destination, now) for rule, destination in copies)
        copies.clear()
        said.counted(counters)

    for what, number in [*events, ("read", 0), ("sum", 0)]:
        now += 0.25
        if what in counters:
            counters[what] += number
            copies += [(what.removeprefix("denied_"), number % 7)] if what.startswith("denied") else []
        elif what == "copies":
            told += sum(said.is_first(rule, destination, now) for rule, destination in copies)
            copies.clear()
        elif what == "name":
            names += 1
            said.name_denied()
            told += said.is_first("domain", number, now)
        elif what == "read":
            read()
        else:
            told += sum(count.packets for count in said.due())
    counters.pop("flows_begun")
    assert told == sum(counters.values()) + names
    assert said.denied == told - counters["limit_tcp"]
    assert not said.is_due


def test_destinations_are_named_once_and_not_faster_than_their_rate() -> None:
    said = Denials(0.0)
    assert sum(said.is_first("port", number, 0.0) for number in range(1000)) == 50
    assert not said.is_first("port", 0, 1000.0)
    assert said.is_first("port", 5000, 1000.0)
    for number in range(3 * MAX_DESTINATIONS):
        said.is_first("port", 10_000 + number, 2000.0 + number)
    assert len(said._named) == MAX_DESTINATIONS


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 10**12))))
def test_sums_are_complete_and_bounded(items: list[tuple[int, int]]) -> None:
    tally: Tally[int] = Tally(Rate(1, 1.0), lambda key: -1, 0.0)
    for key, number in items:
        tally.add(key, number)
    found = dict(tally.taken())
    assert len(found) <= MAX_KEYS + 1
    assert sum(count for count, _ in found.values()) == len(items)
    assert sum(total for _, total in found.values()) == sum(number for _, number in items)
    assert not dict(tally.taken())


def test_what_clients_and_guests_choose_is_bounded_and_printable() -> None:
    sheet = Sheet(has_queries=True)
    said = SessionAudit(sheet, 1, "198.51.100.7", "\x1b[31m\n" + "ü" * 5000)
    name = "\u202e\n" + "n" * 5000
    said.opened("198.51.100.7:1", "raw")
    said.name_denied(name)
    said.handed_out(name, ["93.184.216.34"])
    said.denied("port", "tcp", "93.184.216.34", 25, None)
    said.query(name, "A", "NOERROR", [f"10.0.0.{number}" for number in range(100)], denied=False)
    for line in sheet.lines:
        check(line)
        assert len(json.dumps(line)) < 1500
    assert all(text.isascii() and text.isprintable() for text in map(json.dumps, sheet.lines))


def test_names_of_a_session_are_bounded_and_the_last_one_counts() -> None:
    said = SessionAudit(Sheet(has_queries=True), 1, "", None)
    for number in range(3 * MAX_NAMES):
        said.handed_out("many", [f"a{number}"])
    assert len(said._names) == MAX_NAMES
    said.handed_out("first", ["b"])
    said.handed_out("second", ["b"])
    assert said.name_of("b") == "second"


def test_queries_beyond_their_rate_are_summed_up() -> None:
    sheet = Sheet(has_queries=True)
    said = SessionAudit(sheet, 1, "", None)
    for number in range(1000):
        said.query("a.example", "A", "NOERROR", (), denied=number % 2 == 0)
    said.end()
    single = [line for line in sheet.lines if line["type"] == "dns"]
    summed = [line for line in sheet.lines if line["type"] == "queries"]
    assert 200 <= len(single) < 250
    assert len(single) + sum(line["queries"] for line in summed) == 1000
    for line in sheet.lines:
        check(line)


async def test_lines_that_need_a_failure_or_an_end_are_counted_by_kind_too() -> None:
    metrics, disk = Metrics(), Disk()
    log = AuditLog(disk, metrics, has_queries=False, version="1")
    log.write("incomplete", why="the last counters could not be read", flows=None)
    assert json.loads(log._lost_line(3))["lines"] == 3
    await log.close()
    counted = {
        kind: metrics.registry.get_sample_value("aero_l2_audit_lines_total", {"kind": kind})
        for kind in ("log_open", "incomplete", "lost", "log_close", "flow")
    }
    assert counted == {"log_open": 1, "incomplete": 1, "lost": 1, "log_close": 1, "flow": 0}
    disk.is_full = True
    await AuditLog(disk, metrics, has_queries=False, version="1").close()
    assert metrics.registry.get_sample_value("aero_l2_audit_lines_lost_total") == 2, "its first and its last"
    assert metrics.registry.get_sample_value("aero_l2_audit_errors_total") == 1
