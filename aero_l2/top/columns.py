"""The table of sessions: columns, how they are written, and which of them fit. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aero_l2.top.snapshot import number

Facts = Mapping[str, Any]
_UNITS: Final = ("", "k", "M", "G", "T", "P")
_GAP: Final = 1


@dataclass(frozen=True, slots=True)
class Column:
    """One column. width: characters; PRINCIPAL gets what is left over. rank: where it is narrow, those of
    higher ones go first. sort: name of the order that it shows, empty for none."""

    title: str
    width: int
    rank: int
    text: Callable[[Facts], str]
    sort: str = ""
    left: bool = False


def amount(value: float | None) -> str:
    """A number in at most five characters: 999, 12.3k, 4.5M (thousands); `-` for none."""
    if value is None:
        return "-"
    for unit in _UNITS:
        if abs(value) < 999.5 or unit == _UNITS[-1]:
            break
        value /= 1000
    return f"{value:.0f}{unit}" if value >= 99.95 or not unit else f"{value:.1f}{unit}"


def duration(seconds: float | None) -> str:
    """A time in two units: 59s, 12m03s, 5h07m, 3d04h; `-` for none."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02}h"


def rate(facts: Facts) -> float:
    """Bytes in a second, both ways."""
    return number(facts, "bytes_rx_per_s") + number(facts, "bytes_tx_per_s")


def volume(facts: Facts) -> float:
    """Bytes, both ways."""
    return number(facts, "bytes_rx") + number(facts, "bytes_tx")


def denials(facts: Facts) -> float:
    """Packets and names that policy denied."""
    return number(facts, "denied") + number(facts, "dns_denied")


def flows(facts: Facts) -> float:
    """Active flows of TCP and UDP."""
    return number(facts, "tcp_flows") + number(facts, "udp_flows")


def drops(facts: Facts) -> float:
    """Frames and packets lost."""
    return number(facts, "frames_dropped") + number(facts, "packets_dropped")


SORTS: Final[Mapping[str, Callable[[Facts], float]]] = {
    "rate": rate,
    "bytes": volume,
    "denied": denials,
    "flows": flows,
    "age": lambda facts: number(facts, "age_s"),
}
"""Largest first, but for `id`, which is what sorts what is equal."""

COLUMNS: Final = (
    Column("ID", 6, 0, lambda one: str(one["id"])),
    Column("PRINCIPAL", 12, 1, lambda one: str(one.get("principal") or "-"), left=True),
    Column("CLIENT", 15, 3, lambda one: str(one.get("client") or "-"), left=True),
    Column("STATE", 7, 6, lambda one: str(one.get("state") or "-"), left=True),
    Column("AGE", 6, 4, lambda one: duration(one.get("age_s")), "age"),
    Column("UP/s", 6, 0, lambda one: amount(one.get("bytes_rx_per_s"))),
    Column("DOWN/s", 7, 0, lambda one: amount(one.get("bytes_tx_per_s")), "rate"),
    Column("BYTES", 6, 2, lambda one: amount(volume(one)), "bytes"),
    Column("TCP", 5, 5, lambda one: amount(one.get("tcp_flows"))),
    Column("UDP", 5, 5, lambda one: amount(one.get("udp_flows")), "flows"),
    Column("DENIED", 7, 2, lambda one: amount(denials(one)), "denied"),
    Column("DROPS", 6, 4, lambda one: amount(drops(one))),
    Column("DNS", 6, 7, lambda one: amount(one.get("dns_queries"))),
    Column("RTT ms", 6, 7, lambda one: amount(one.get("rtt_ms"))),
    Column(
        "BUFFER", 6, 8, lambda one: amount(one.get("buffered_bytes")) + ("!" if one.get("paused") else "")
    ),
)
"""UP is from the guest, DOWN to it, in bytes. `!`: the client does not keep up."""


def ordered(sessions: Sequence[Facts], sort: str, *, reverse: bool = False) -> list[Facts]:
    """By that order; equal ones by id."""
    key = SORTS[sort]
    return sorted(sessions, key=lambda one: (key(one) if reverse else -key(one), number(one, "id")))


def fitting(width: int) -> tuple[list[Column], int]:
    """The columns for so many characters, the first of them always, and what is left over for texts."""
    chosen = list(COLUMNS)
    while len(chosen) > 1 and _taken(chosen) > width:
        chosen.remove(max(reversed(chosen), key=lambda column: column.rank))
    return chosen, max(0, width - _taken(chosen))


def _taken(columns: Sequence[Column]) -> int:
    return sum(column.width + _GAP for column in columns) - _GAP


def heading(columns: Sequence[Column], spare: int, sort: str) -> str:
    """The line above; the column that is sorted by has a mark."""
    titles = [f"{column.title}*" if column.sort == sort else column.title for column in columns]
    return _line(columns, spare, titles)


def row(columns: Sequence[Column], spare: int, facts: Facts) -> str:
    """One session."""
    return _line(columns, spare, [column.text(facts) for column in columns])


def _line(columns: Sequence[Column], spare: int, cells: Sequence[str]) -> str:
    written = []
    for column, cell in zip(columns, cells, strict=True):
        width = column.width + (spare if column.title == "PRINCIPAL" else 0)
        cut = cell if len(cell) <= width else cell[: width - 1] + "~"
        written.append(f"{cut:<{width}}" if column.left else f"{cut:>{width}}")
    return (" " * _GAP).join(written).rstrip()
