"""The pure parts of bench/: medians, tables, documents, comparisons, the page."""

from __future__ import annotations

import ast
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aero_l2.client.address import Target
from bench import clocks, compare, overhead, page, peer, wire
from bench.__main__ import main
from bench.document import Document, NotADocument
from bench.figures import Column, Table, number, quantile
from bench.lab import Running, card
from bench.run import PARTS, Order, table_of

TREE = Path(__file__).parents[2]
ELSEWHERE = Target.of("ws://lab.example/l2")
COLUMNS = (Column("mbit_s", "Mbit/s"), Column("server_s_per_gb", "server CPU s/GB", 1, compared=True))


def table(*rounds: tuple[float, float]) -> Table:
    made = Table("transfers", "Bulk TCP", ("path", "direction"), COLUMNS)
    for rate, cost in rounds:
        made.add(("tunnel", "up"), {"mbit_s": rate, "server_s_per_gb": cost})
    return made


def document(*rounds: tuple[float, float], yardstick: float = 0.01) -> Document:
    return Document(
        taken="2026-01-02T03:04:05Z",
        revision="abc1234",
        server="local",
        settings={},
        also={},
        rounds=len(rounds),
        quick=False,
        seconds=120.0,
        machine={"cores": "2 × a processor", "memory": "24 GiB"},
        yardstick=[yardstick * 1.1, yardstick, yardstick * 0.9],
        steal=0.05,
        tables={"transfers": table(*rounds)},
    )


def test_median_and_spread_are_of_all_rounds() -> None:
    made = table((100, 12.04), (300, 11.0), (200, 15.26))
    assert made.markdown().splitlines() == [
        "| path | direction | Mbit/s | server CPU s/GB |",
        "|---|---|---|---|",
        "| tunnel | up | 200 (100–300) | 12.0 (11.0–15.3) |",
    ]


def test_one_round_has_no_spread_and_what_was_not_measured_has_no_column() -> None:
    made = Table("transfers", "Bulk TCP", ("path", "direction"), COLUMNS)
    made.add(("straight wire", "up"), {"mbit_s": 1234.4})
    assert made.markdown().splitlines()[2] == "| straight wire | up | 1,234 |"
    made.add(("tunnel", "up"), {"server_s_per_gb": 2})
    assert made.markdown().splitlines()[2:] == [
        "| straight wire | up | 1,234 | – |",
        "| tunnel | up | – | 2.0 |",
    ]


@pytest.mark.parametrize(
    ("row", "figures"),
    [(("tunnel", "up"), {"mbit": 1.0}), (("tunnel",), {"mbit_s": 1.0})],
    ids=["figure", "row"],
)
def test_figure_or_row_that_the_table_has_not_is_refused(
    row: tuple[str, ...], figures: dict[str, float]
) -> None:
    with pytest.raises(KeyError):
        table().add(row, figures)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(1234.5, 0, "1,234"), (-0.01, 1, "0.0"), (0.345, 2, "0.34"), (float("inf"), 0, "–"), (-2, 0, "-2")],
)
def test_numbers_are_written_for_people(value: float, digits: int, text: str) -> None:
    assert number(value, digits) == text


def test_quantiles_are_values_that_were_seen() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [quantile(values, share) for share in (0, 0.5, 0.99, 1)] == [1, 51, 99, 100]
    assert quantile([7.0], 0.99) == 7


def test_document_survives_json() -> None:
    taken = document((100, 12), (300, 11), (200, 15))
    again = Document.of_json(json.loads(json.dumps(taken.as_json())))
    assert again == taken
    assert again.markdown() == taken.markdown()


def test_json_has_the_documented_shape() -> None:
    (row,) = document((100, 12), (300, 11), (200, 15)).as_json()["tables"]["transfers"]["rows"]
    assert row == {
        "labels": ["tunnel", "up"],
        "figures": {
            "mbit_s": {"median": 200, "min": 100, "max": 300, "values": [100, 300, 200]},
            "server_s_per_gb": {"median": 12, "min": 11, "max": 15, "values": [12, 11, 15]},
        },
    }


@pytest.mark.parametrize("data", [[], {}, {"format": 0}, {"format": 1}, {"format": 1, "tables": {"x": {}}}])
def test_other_json_is_no_document(data: Any) -> None:
    with pytest.raises(NotADocument):
        Document.of_json(data)


def differ(first: Document, second: Document) -> list[compare.Difference]:
    return list(compare.differences(first, second))


def test_medians_are_compared_and_single_rounds_are_not() -> None:
    first, second = document((100, 10), (100, 11), (100, 30)), document((100, 5), (100, 11.5), (100, 12))
    (found,) = differ(first, second)
    assert (found.first, found.second, round(found.share, 3)) == (11, 11.5, 0.045)
    assert not compare.beyond([found], 0.15)
    assert "1 of 1 medians within 15 %, the largest difference +4.5 %" in compare.verdict(
        first, second, [found], 0.15
    )


def test_difference_beyond_is_marked_whichever_run_is_first() -> None:
    slow, fast = document((100, 12)), document((100, 10))
    for first, second in ((slow, fast), (fast, slow)):
        found = differ(first, second)
        assert compare.beyond(found, 0.15) == found
        assert not compare.beyond(found, 0.21)
        assert "**beyond**" in compare.markdown(found, 0.15)


def test_machine_that_was_slower_is_said() -> None:
    first, second = document((100, 10)), document((100, 11), yardstick=0.0125)
    said = compare.verdict(first, second, differ(first, second), 0.15)
    assert said.endswith("the machine took +25.0 % CPU time in the second run")


def test_what_is_negligible_or_missing_is_not_compared() -> None:
    assert not differ(document((100, 0.1)), document((100, 0.2)))
    other = document((100, 5))
    other.tables = {}
    assert not differ(document((100, 5)), other)
    assert compare.verdict(other, other, [], 0.15).startswith("the runs have no CPU figure")


def test_page_is_written_between_its_markers_only() -> None:
    old = f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n"
    new = page.between(old, page.text([document((100, 12))], 15, {"transfers": "performance/transfers.svg"}))
    assert new.startswith(f"before\n{page.BEGIN}\n2026-01-02, commit abc1234; 2 × a processor, 24 GiB. ")
    assert "### Bulk TCP\n\n| path |" in new
    assert "![Bulk TCP](performance/transfers.svg)" in new
    assert "old" not in new
    assert new.endswith(f"{page.END}\nafter\n")
    with pytest.raises(ValueError, match="no markers"):
        page.between("nothing", "new")


def test_page_says_how_well_a_second_run_agreed() -> None:
    said = page.text([document((100, 12)), document((100, 13))], 15, {})
    assert "1 of 1 medians within 15 %" in said
    assert "| transfers: tunnel, up | server CPU s/GB | 12.0 | 13.0 | +8.3 % |" in said


def test_docs_have_the_markers() -> None:
    page.between(page.PAGE.read_text(), "anything")


def test_processor_time_is_split_as_the_ticks_are() -> None:
    spent = clocks.Cpu(11.0, 3.0, 1.0).since(clocks.Cpu(10.0, 2.0, 1.0 - 1 / 3))
    assert (spent.total, round(spent.user, 6), round(spent.system, 6)) == (1, 0.75, 0.25)
    assert clocks.Cpu(1.001, 0, 0).since(clocks.Cpu(1.0, 0, 0)).user == 0


def test_processor_time_of_another_process_is_finer_than_ticks() -> None:
    values = {clocks.cpu(1).total, clocks.yardstick(), clocks.yardstick()}
    assert all(value > 0 and value * 100 != round(value * 100) for value in values)


def test_frames_are_taken_apart_wherever_reads_cut_them() -> None:
    frames = [bytes(60), bytes(range(200)), b""]
    sent = b"\x89\x02hi"
    for frame in frames:
        payload = b"\xa2\x03\0\0" + frame
        length = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2)
        sent += b"\x82" + length + payload
    for step in (1, 2, 3, 50, len(sent)):
        reader = wire.Frames()
        got = [one for at in range(0, len(sent), step) for one in reader.feed(sent[at : at + step])]
        assert got == frames


def test_refusal_hides_the_token() -> None:
    target = Target.of("ws://lab.example/l2?token=very-secret")
    with pytest.raises(wire.TunnelRefused) as caught:
        wire.check_answer(target, b"HTTP/1.1 401 no very-secret\r\n\r\n")
    assert str(caught.value) == "ws://lab.example/l2: HTTP/1.1 401 no ***"


@contextmanager
def carding() -> Iterator[tuple[subprocess.Popen[bytes], socket.socket, socket.socket]]:
    """The card, between the far ends of its TAP and of its WebSocket."""
    tap, guest = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near, server = socket.socketpair()
    with tap, guest, near, server:
        fds = (tap.fileno(), near.fileno())
        process = subprocess.Popen([card(), *map(str, fds)], pass_fds=fds)
        tap.close()
        near.close()
        try:
            yield process, guest, server
        finally:
            process.kill()
            process.wait(10)


def test_card_carries_a_frame_and_ends_at_an_empty_close() -> None:
    with carding() as (process, guest, server):
        server.sendall(b"\x82\x0a\xa2\x03\x00\x00frames"[:12] + b"\x88\x00")
        assert guest.recv(2048) == b"frames"
        assert process.wait(30) == 0


def test_card_ends_with_its_tap() -> None:
    with carding() as (process, guest, _):
        guest.close()
        assert process.wait(30) == 1


def test_peer_floods_nobody_but_its_client() -> None:
    """A datagram's source can be made up, the address of a TCP connection cannot."""
    address = "127.0.0.77"
    serving = Running([sys.executable, "-m", "bench.peer", address])
    try:
        with (
            socket.create_connection((address, peer.DATAGRAMS), timeout=10) as control,
            socket.socket(type=socket.SOCK_DGRAM) as victim,
            socket.socket(type=socket.SOCK_DGRAM) as client,
        ):
            control.sendall(b"d" + (300).to_bytes(4))
            there = (address, int.from_bytes(control.recv(2)))
            victim.bind(("127.0.0.2", 0))
            victim.sendto(b"here", there)
            client.sendto(b"here", there)
            assert int.from_bytes(control.recv(8)) > 0
            client.settimeout(10)
            assert len(client.recv(2048)) == peer.PAYLOAD
            victim.setblocking(False)
            with pytest.raises(BlockingIOError):
                victim.recv(2048)
    finally:
        serving.close()


def test_only_the_plots_need_matplotlib() -> None:
    """It is in an extra of its own, and no other module of the tree imports it."""
    found = set()
    ours = ("aero_l2", "bench", "netns", "slirp", "tests/support")
    for path in (path for folder in ours for path in (TREE / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "matplotlib" for name in names):
                found.add(str(path.relative_to(TREE)))
    assert found == {"bench/plots.py"}


@pytest.mark.parametrize(
    ("order", "parts"),
    [
        (Order(), PARTS),
        (Order(only=("many", "latency")), ("latency", "many")),
        (Order(target=ELSEWHERE), ("opening",)),
        (Order(target=ELSEWHERE, peer="192.0.2.7"), ("transfers", "latency", "packets", "opening")),
        (Order(target=ELSEWHERE, only=("many", "memory", "transfers")), ("many",)),
    ],
    ids=["all", "some", "elsewhere", "elsewhere with a peer", "elsewhere by name"],
)
def test_what_is_measured(order: Order, parts: tuple[str, ...]) -> None:
    """Of a server elsewhere: nothing goes through its tunnels but to a peer that was named, and a thousand of
    them are opened only where that was asked for."""
    assert order.parts() == parts


def test_every_part_has_a_table_and_a_plot() -> None:
    plotted = ast.parse((TREE / "bench/plots.py").read_text())
    strings = {node.value for node in ast.walk(plotted) if isinstance(node, ast.Constant)}
    for part in PARTS:
        made = table_of(part)
        assert made.name == part
        assert part in strings
        assert len({column.name for column in made.columns}) == len(made.columns)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--url", "ws://lab.example/l2", "--write"], "for a server of its own"),
        (["--url", "lab.example"], "in front"),
        (["--peer", "192.0.2.7"], "goes with --url"),
        (["--url", "ws://lab.example", "--only", "memory"], "nothing of that can be measured"),
        (["peer"], "one address"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert said in str(caught.value)


def test_what_a_setting_costs_is_the_mean_of_rounds_with_its_interval() -> None:
    costs = {"without": [1.0, 2.0, 4.0], "with": [1.1, 2.2, 40.0], "control": [1.0, 2.0, 4.0]}
    assert overhead.ratio(costs, "with") == pytest.approx(1.1)
    assert overhead.mean([0.5, 2.0]) == pytest.approx(1.0)
    low, high = overhead.interval([1.0, 1.1] * 12)
    assert 1.0 < low < overhead.mean([1.0, 1.1]) < high < 1.1
    assert overhead.more([1.1] * 5) == "+10.0 % (+10.0 to +10.0)"
