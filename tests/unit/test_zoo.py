"""The table of guests: made of rows, between two lines of docs/guests.md, with each test file in it."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from support import zoo

TEST = "tests/integration/guests/test_vax.py"
ROW = zoo.Row("Linux 9.9 vax", "Linux", "de100", "yes", "over UDP", "HTTP", "–", 12.34)


PROGRAM = "tests/interop/test_vms.py"


def record(monkeypatch: pytest.MonkeyPatch, test: str, *rows: zoo.Row) -> None:
    monkeypatch.setenv("PYTEST_CURRENT_TEST", f"{test}::test_it[root] (call)")
    for row in rows:
        zoo.record(row)


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(zoo, "ROWS", tmp_path / "rows")
    monkeypatch.delenv(zoo.ROWS_VARIABLE, raising=False)
    return tmp_path / "rows"


def test_a_row_is_kept_until_its_guest_records_another(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(monkeypatch, TEST, ROW, zoo.Row("Linux 9.9 vax", "Linux", "de100", "yes", "–", "HTTP", "–", 11.0))
    record(monkeypatch, PROGRAM, zoo.Row("A program", "lwIP", "WebSocket", "yes", "–", "yes", "–", 0.04))
    assert zoo.table(zoo.kept(rows, zoo.GUESTS) + zoo.kept(rows, zoo.PROGRAMS)).splitlines()[2:] == [
        f"| [Linux 9.9 vax](../{TEST}) | Linux | de100 | yes | – | HTTP | – | 11.0 |",
        f"| [A program](../{PROGRAM}) | lwIP | WebSocket | yes | – | yes | – | 0.04 |",
    ]


def test_a_program_that_is_tried_again_leaves_no_row_of_an_earlier_run(
    rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(monkeypatch, PROGRAM, ROW)
    zoo.forget("tests/interop/test_other.py")
    assert len(zoo.kept(rows, zoo.PROGRAMS)) == 1
    zoo.forget(PROGRAM)
    assert not zoo.kept(rows, zoo.PROGRAMS)


def test_rows_that_an_older_version_left_are_none(rows: Path) -> None:
    rows.mkdir()
    (rows / "old.json").write_text(json.dumps({"test": PROGRAM, **asdict(ROW)}))
    assert not zoo.kept(rows, zoo.PROGRAMS)


def test_rows_of_programs_say_when_they_were_taken(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert zoo.taken([]).endswith("cores.")
    record(monkeypatch, PROGRAM, ROW)
    (row,) = zoo.kept(rows, zoo.PROGRAMS)
    day = str(row["taken"])
    assert zoo.taken([row]).endswith(f"; the programs of `./dev interop` on {day}.")


def test_table_is_of_one_run_and_of_every_guest(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows of another run, beside this one or before it, are none of its; a guest without a row fails it."""
    page = tmp_path / "guests.md"
    page.write_text(f"{zoo.START}\nold\n{zoo.END}\n")
    monkeypatch.setattr(zoo, "PAGE", page)
    record(monkeypatch, TEST, ROW)
    assert zoo.main(["--collect-only", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]) == 1
    assert "test_u_boot.py" in capsys.readouterr().err
    assert "old" in page.read_text()
    assert zoo.kept(rows, zoo.GUESTS), "the other run still has its own"


def test_only_what_is_between_the_two_lines_is_replaced() -> None:
    text = f"before\n{zoo.START}\nold\n{zoo.END}\nafter\n"
    assert zoo.page(text, "new") == f"before\n{zoo.START}\n\nnew\n\n{zoo.END}\nafter\n"
    with pytest.raises(AssertionError, match="has no line"):
        zoo.page("before\nold\nafter\n", "new")


def test_every_guest_has_a_row_in_the_table() -> None:
    text = zoo.PAGE.read_text()
    table = text.partition(zoo.START)[2].partition(zoo.END)[0]
    shown = set(re.findall(r"^\| \[.+?\]\(\.\./(tests/\S+?)\) \|", table, re.MULTILINE))
    guests = {f"{zoo.GUESTS}/{path.name}" for path in (zoo.REPOSITORY / zoo.GUESTS).glob("test_*.py")}
    assert guests - shown == set(), "./dev guests writes the table"
