"""Two runs side by side: by how much the medians of what should repeat differ. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from bench.document import Document
from bench.figures import Column, Row, number

NEGLIGIBLE = 0.3
"""CPU seconds per GB (or per million packets): below that, a ratio says nothing."""


@dataclass(frozen=True)
class Difference:
    """One figure in both runs. share: of the second median over the first, less one."""

    table: str
    row: Row
    column: Column
    first: float
    second: float

    @property
    def share(self) -> float:
        """+0.1: the second is 10 % more."""
        return self.second / self.first - 1


def speed(first: Document, second: Document) -> float:
    """1.1: the machine took 10 % more CPU time for the same work in the second run."""
    if not first.yardstick or not second.yardstick:
        return 1.0
    return statistics.median(second.yardstick) / statistics.median(first.yardstick)


def differences(first: Document, second: Document) -> Iterator[Difference]:
    """Every compared figure that both runs have and that is not negligible in both."""
    for name, table in first.tables.items():
        other = second.tables.get(name)
        if other is None:
            continue
        for row in table.rows:
            for column in table.columns:
                a, b = table.median(row, column.name), other.median(row, column.name)
                if column.compared and a and b and max(a, b) > NEGLIGIBLE:
                    yield Difference(name, row, column, a, b)


def beyond(found: list[Difference], within: float) -> list[Difference]:
    """Those that differ by more than ``within`` of the larger, so that the order of the two is no matter."""
    return [one for one in found if 1 - min(one.first, one.second) / max(one.first, one.second) > within]


def markdown(found: list[Difference], within: float) -> str:
    """A table, the figures beyond marked."""
    far = beyond(found, within)
    lines = ["| measured | figure | first | second | difference |", f"|{'---|' * 5}"]
    for one in found:
        share = f"{one.share * 100:+.1f} %" + (" **beyond**" if one in far else "")
        values = (number(value, max(1, one.column.digits)) for value in (one.first, one.second))
        lines.append(
            f"| {one.table}: {', '.join(one.row)} | {one.column.heading} | {' | '.join(values)} | {share} |"
        )
    return "\n".join(lines)


def verdict(first: Document, second: Document, found: list[Difference], within: float) -> str:
    """One line: how far apart, and how far the machine was."""
    if not found:
        return "nothing to compare: the runs have no CPU figure in common"
    far, largest = beyond(found, within), max((one.share for one in found), key=abs)
    return (
        f"{len(found) - len(far)} of {len(found)} medians within {within * 100:.0f} %, the largest "
        f"difference {largest * 100:+.1f} %; for a fixed piece of work the machine took "
        f"{(speed(first, second) - 1) * 100:+.1f} % CPU time in the second run"
    )
