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

    speed: float
    """CPU seconds of the same work in the second run over those in the first."""

    @property
    def plain(self) -> float:
        """+0.1: the second is 10 % more."""
        return self.second / self.first - 1

    @property
    def share(self) -> float:
        """The same, had the machine been as fast as in the first run."""
        return self.second / self.first / self.speed - 1


def speed(first: Document, second: Document) -> float:
    """1.1: the machine took 10 % more CPU time for the same work in the second run."""
    if not first.yardstick or not second.yardstick:
        return 1.0
    return statistics.median(second.yardstick) / statistics.median(first.yardstick)


def differences(first: Document, second: Document) -> Iterator[Difference]:
    """Every compared figure that both runs have and that is not negligible in both."""
    slower = speed(first, second)
    for name, table in first.tables.items():
        other = second.tables.get(name)
        if other is None:
            continue
        for row in table.rows:
            for column in table.columns:
                a, b = table.median(row, column.name), other.median(row, column.name)
                if column.compared and a and b and max(a, b) > NEGLIGIBLE:
                    yield Difference(name, row, column, a, b, slower)


def beyond(found: list[Difference], within: float) -> list[Difference]:
    """Those that differ by more than ``within`` of the larger, so that the order of the two is no matter."""
    return [one for one in found if 1 - min(1 + one.share, 1 / (1 + one.share)) > within]


def markdown(found: list[Difference], within: float) -> str:
    """A table, the figures beyond marked."""
    far = beyond(found, within)
    lines = ["| measured | figure | first | second | difference | at the same speed |", f"|{'---|' * 6}"]
    for one in found:
        share = f"{one.share * 100:+.1f} %" + (" **beyond**" if one in far else "")
        values = (number(value, max(1, one.column.digits)) for value in (one.first, one.second))
        cells = [f"{one.table}: {', '.join(one.row)}", one.column.heading, *values]
        lines.append(f"| {' | '.join([*cells, f'{one.plain * 100:+.1f} %', share])} |")
    return "\n".join(lines)


def verdict(found: list[Difference], within: float) -> str:
    """One line: how far apart, and how much of it was the machine."""
    if not found:
        return "nothing to compare: the runs have no CPU figure in common"
    far = beyond(found, within)
    plain, fair = (max((one.plain for one in found), key=abs), max((one.share for one in found), key=abs))
    slower = found[0].speed - 1
    return (
        f"{len(found) - len(far)} of {len(found)} medians within {within * 100:.0f} %, the largest "
        f"difference {fair * 100:+.1f} %. For the same work the machine took {slower * 100:+.1f} % CPU time "
        f"in the second run; without taking that into account the largest difference is {plain * 100:+.1f} %"
    )
