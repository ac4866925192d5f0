"""bench/: its command line, what it refuses before it measures, and whose files it leaves."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from aero_l2.client.address import Target
from bench import clocks, compare, machine, many, options, outputs, page, settings, transfers
from bench.__main__ import main, run, show
from bench.document import Document
from bench.figures import Table
from bench.lab import QUICK, Work
from bench.run import Order, table_of

TREE = Path(__file__).parents[2]
USER_ID = 61234
SECRET = "AERO_L2_API_KEY"


def document(cost: float = 10, table: str = "transfers") -> Document:
    """A run with one figure."""
    made = table_of(table)
    made.add(("tunnel", "up"), {made.columns[1].name: cost})
    return Document(
        "2026-01-02T03:04:05Z", "", "local", {}, {}, 1, False, 1.0, {}, [0.01], 0.0, {table: made}
    )


def written(folder: Path, *documents: Document) -> list[str]:
    """Their files."""
    paths = [folder / f"{number}.json" for number in range(len(documents))]
    for path, one in zip(paths, documents, strict=True):
        show(one, path)
    return list(map(str, paths))


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said, which is one line."""
    assert run(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("bench: ")
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "AERO_L2_OPEN"], "expected NAME=VALUE"),
        (["--set", "AERO_L2_RECEIVE_PAHT=own"], "did you mean AERO_L2_RECEIVE_PATH?"),
        (["--set", "PATH=/tmp"], "PATH is not a setting"),
        (["--set", "AERO_L2_RECEIVE_PATH=x"], "--set: AERO_L2_RECEIVE_PATH='x' is not known"),
        (["--also", "AERO_L2_MAX_CONNECTIONS=x"], "--also: AERO_L2_MAX_CONNECTIONS='x'"),
        (["--rounds", "x"], "'x' is not a whole number from 1 on"),
        (["--within", "nan"], "'nan' is not a percentage"),
        (["--nothing"], "unrecognized arguments: --nothing"),
        (["--url", "foo"], "with ws:// or wss:// in front"),
        (["--url", "ws://lab.example", "--only", "memory"], "memory: with --url only"),
        (["--url", "ws://lab.example", "--only", "latency"], "latency: with --url these need --peer"),
        (["--json", "/proc/self/nowhere/a.json"], "there is no folder"),
        (["--json", "/proc"], "/proc is a folder"),
        (["--plot", "/proc/self/stat/plots"], "/proc/self/stat is no folder"),
        (["compare", "/proc/self/stat", "/proc/self/stat"], "is not JSON"),
        (["compare", "/nonexistent", "/nonexistent"], "No such file"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_measured(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(words, capsys)


def test_every_file_of_repeated_runs_is_judged_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken-2.json").mkdir()
    said = refused(["--json", str(tmp_path / "taken.json"), "--repeat", "2"], capsys)
    assert "taken-2.json is a folder" in said
    assert [path.name for path in tmp_path.iterdir()] == ["taken-2.json"]


def test_settings_of_a_server_are_judged_together() -> None:
    assert settings.fault({"AERO_L2_RECEIVE_PATH": "library"}) is None
    assert settings.fault({}) is None
    assert "AERO_L2_AUTH_MODE" in (settings.fault({"AERO_L2_AUTH_MODE": "token"}) or "")


def test_no_secret_is_written_down() -> None:
    given = {SECRET: "very-secret", "AERO_L2_RECEIVE_PATH": "own"}
    assert settings.public(given) == {SECRET: "***", "AERO_L2_RECEIVE_PATH": "own"}


def test_page_says_what_was_set() -> None:
    taken = replace(document(), settings={"AERO_L2_OPEN": "1"}, also={"AERO_L2_RECEIVE_PATH": "own"})
    said = "Server with AERO_L2_OPEN=1. A second one with AERO_L2_RECEIVE_PATH=own. Medians"
    assert said in page.machine(taken)
    assert "Server with" not in page.machine(document())


def test_what_of_a_server_elsewhere_is_left_out_is_said_with_its_reason() -> None:
    there = Target.of("ws://lab.example/l2")
    assert options.left_out(Order()) is None
    assert options.left_out(Order(target=there)) == "without --peer there is no transfers, latency, packets"
    assert options.left_out(Order(target=there, peer="192.0.2.7")) is None
    only = ("memory", "opening")
    assert options.left_out(Order(target=there, only=only)) == "of a server elsewhere there is no memory"


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (replace(document(), server="ws://lab.example/l2"), "two servers: local and ws://lab.example/l2"),
        (replace(document(), quick=True), "--quick"),
        (replace(document(), tables={}), "nothing to compare"),
    ],
    ids=["server", "quick", "tables"],
)
def test_runs_that_cannot_be_compared_are_refused(
    second: Document, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = written(tmp_path, document(), second)
    capsys.readouterr()
    assert said in refused(["compare", *paths], capsys)


def test_settings_that_differ_are_said_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = written(tmp_path, document(), replace(document(), settings={"AERO_L2_RECEIVE_PATH": "library"}))
    capsys.readouterr()
    assert main(["compare", *paths]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "**The servers differ**: no setting and AERO_L2_RECEIVE_PATH=library"


def test_compare_tells_by_its_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = written(tmp_path, document(10), document(11), document(20))
    assert main(["compare", paths[0], paths[1]]) == 0
    assert main(["compare", paths[0], paths[1], "--within", "5"]) == 1
    assert main(["compare", paths[0], paths[2]]) == 1
    assert "+100.0 %" in capsys.readouterr().out


def test_difference_that_is_printed_is_the_one_that_counts() -> None:
    up = list(compare.differences(document(100), document(116)))
    down = list(compare.differences(document(116), document(100)))
    for found, said in ((up, "+16.0 % **beyond**"), (down, "-16.0 % **beyond**")):
        assert compare.beyond(found, 0.15) == found
        assert said in compare.markdown(found, 0.15)


def test_first_column_that_is_shown_has_the_unit() -> None:
    seen = table_of("transfers")
    seen.add(("tunnel", "up"), {"mbit_s": 100, "card_s_per_gb": 8})
    assert seen.markdown().startswith("| path | direction | Mbit/s | client CPU s/GB |\n")
    seen.add(("tunnel", "down"), {"server_s_per_gb": 7})
    assert seen.markdown().startswith("| path | direction | Mbit/s | server CPU s/GB | client |\n")


def test_little_work_is_not_split_by_ticks() -> None:
    spent = {"server": clocks.Cpu(1.0, 0.25, 0.75), "card": clocks.Cpu(2.0, 1, 1)}
    assert (Work().split, QUICK.split) == (True, False)
    assert transfers.costs(spent, 0.5, "s", split=False) == {"server_s": 2, "card_s": 4}
    assert transfers.costs(spent, 0.5, "s", split=True) == {
        "server_s": 2,
        "server_user_s": 0.5,
        "server_system_s": 1.5,
        "card_s": 4,
    }


def test_round_in_which_every_tunnel_failed_is_noticed() -> None:
    made = Table("many", "Many tunnels", ("tunnels",), many.COLUMNS)
    made.add(("5",), {"failed": 4, "offer_p50_ms": 10})
    assert not many.all_failed(made)
    made.add(("5",), {"failed": 5})
    assert many.all_failed(made)


def test_json_has_no_infinity(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        show(document(float("inf")), tmp_path / "taken.json")
    assert not list(tmp_path.iterdir())


def test_relative_paths_are_meant_from_where_dev_was_started(tmp_path: Path) -> None:
    written(tmp_path, document(), document())
    done = subprocess.run(
        [TREE / "dev", "bench", "compare", "0.json", "1.json"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "1 of 1 medians within 15 %" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"), [((), "--only"), (("compare",), "--within"), (("peer",), "ADDRESS")], ids=str
)
def test_bench_has_help_of_its_own(words: tuple[str, ...], said: str) -> None:
    done = subprocess.run([TREE / "dev", "bench", *words, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(" ".join(("usage: ./dev bench", *words)))
    assert said in done.stdout


def test_what_root_makes_goes_to_the_owner_of_the_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "TREE", tmp_path)
    (tmp_path / "root's.json").touch()
    os.chown(tmp_path, USER_ID, USER_ID)
    outputs.folder(tmp_path / "a/b")
    written(tmp_path / "a/b", document())
    show(document(), tmp_path / "root's.json")
    assert {path.stat().st_uid for path in (tmp_path / "a").rglob("*")} == {USER_ID}
    assert (tmp_path / "root's.json").stat().st_uid == 0


def test_plots_leave_nothing_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with page.home_of_its_own():
        elsewhere = {os.environ[name] for name in ("HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME")}
        (home,) = elsewhere
        assert Path(home).is_dir()
        assert home != str(tmp_path)
    assert not Path(home).exists()
    assert os.environ["HOME"] == str(tmp_path)
    assert "XDG_CACHE_HOME" not in os.environ


def test_asking_for_the_revision_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that is out of date would be written anew, and by root it would be root's."""
    monkeypatch.chdir(tmp_path)
    named = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    (tmp_path / "a").write_text("text")
    for words in (("init", "-q"), ("add", "a"), (*named, "commit", "-q", "-m", "a")):
        subprocess.run(["git", *words], check=True)
    os.utime(tmp_path / "a", (1, 1))
    before = (tmp_path / ".git/index").read_bytes()
    assert len(machine.revision()) >= 7
    assert (tmp_path / ".git/index").read_bytes() == before


def test_json_says_what_was_set(tmp_path: Path) -> None:
    show(replace(document(), settings={"AERO_L2_OPEN": "1"}), tmp_path / "taken.json")
    taken = json.loads((tmp_path / "taken.json").read_text())
    assert (taken["format"], taken["settings"], taken["also"]) == (2, {"AERO_L2_OPEN": "1"}, {})
