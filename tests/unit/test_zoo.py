"""The table of guests: made of rows, between two lines of docs/guests.md, with each test file in it."""

import re
from pathlib import Path

import pytest
from support import zoo

TEST = "tests/integration/guests/test_vax.py"
ROW = zoo.Row("Linux 9.9 vax", "Linux", "de100", "yes", "over UDP", "HTTP", "–", 12.34)


def test_a_row_is_kept_until_its_guest_records_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "ROWS", tmp_path / "rows")
    monkeypatch.setenv("PYTEST_CURRENT_TEST", f"{TEST}::test_it[root] (call)")
    zoo.record(ROW)
    zoo.record(zoo.Row("Linux 9.9 vax", "Linux", "de100", "yes", "over UDP", "HTTP", "–", 11.0))
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "")
    zoo.record(zoo.Row("A program", "lwIP", "WebSocket", "yes", "–", "yes", "–", 0.04))
    assert zoo.table(zoo.kept()).splitlines()[2:] == [
        f"| [Linux 9.9 vax](../{TEST}) | Linux | de100 | yes | over UDP | HTTP | – | 11.0 |",
        "| A program | lwIP | WebSocket | yes | – | yes | – | 0.04 |",
    ]


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
