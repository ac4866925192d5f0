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
    """One figure in both runs."""

    table: str
    row: Row
    column: Column
    first: float
    second: float

    @property
    def share(self) -> float:
        """Of the smaller, so that the order of the two is no matter. +0.1: the second is 10 % more than the
        first; -0.1: the first is 10 % more than the second."""
        return (self.second - self.first) / min(self.first, self.second)


def speed(first: Document, second: Document) -> float:
    """1.1: the machine took 10 % more CPU time for the same work in the second run."""
    if not first.yardstick or not second.yardstick:
        return 1.0
    return statistics.median(second.yardstick) / statistics.median(first.yardstick)


def refusal(first: Document, second: Document) -> str | None:
    """Why two runs cannot be compared."""
    if first.server != second.server:
        return f"these are runs of two servers: {first.server} and {second.server}"
    if first.quick != second.quick:
        return "one of the runs was --quick and the other was not"
    if not list(differences(first, second)):
        return "nothing to compare: the runs have no CPU figure in common"
    return None


def warning(first: Document, second: Document) -> str | None:
    """What was set otherwise, which may be what is compared."""
    sides = [
        " ".join(f"{name}={value}" for name, value in run.settings.items()) or "no setting"
        for run in (first, second)
    ]
    return None if sides[0] == sides[1] else f"**The servers differ**: {sides[0]} and {sides[1]}"


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
    """Those that differ by more than ``within``."""
    return [one for one in found if abs(one.share) > within]


def markdown(found: list[Difference], within: float) -> str:
    """A table, the figures beyond marked."""
    far = beyond(found, within)
    lines = ["| measured | figure | first | second | difference, of the smaller |", f"|{'---|' * 5}"]
    for one in found:
        share = f"{one.share * 100:+.1f} %" + (" **beyond**" if one in far else "")
        values = (number(value, max(1, one.column.digits)) for value in (one.first, one.second))
        measured = f"{one.table}: {', '.join(one.row)} | {one.column.full_heading}"
        lines.append(f"| {measured} | {' | '.join(values)} | {share} |")
    return "\n".join(lines)


def verdict(first: Document, second: Document, found: list[Difference], within: float) -> str:
    """One line: how far apart, and how far the machine was."""
    if not found:
        return "the runs have no CPU figure in common"
    far, largest = beyond(found, within), max((one.share for one in found), key=abs)
    return (
        f"{len(found) - len(far)} of {len(found)} medians within {within * 100:.0f} %, the largest "
        f"difference {largest * 100:+.1f} %; for a fixed piece of work the machine took "
        f"{(speed(first, second) - 1) * 100:+.1f} % CPU time in the second run"
    )
