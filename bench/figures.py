"""Values taken in rounds, and what is said of them: median, smallest and largest. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the values lie, the nearest one."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


@dataclass(frozen=True)
class Column:
    """A figure of a table. name: with its unit, as in the JSON. compared: a repeated run has to agree.
    unit: stands behind the heading of the first column that has it, and not of those that follow."""

    name: str
    heading: str
    digits: int = 0
    compared: bool = False
    unit: str = ""

    @property
    def full_heading(self) -> str:
        """By itself."""
        return f"{self.heading} {self.unit}".strip()


Row = tuple[str, ...]


@dataclass
class Table:
    """Rows of figures. A row is known by its labels; each figure has one value a round."""

    name: str
    title: str
    labels: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: dict[Row, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, row: Row, figures: dict[str, float]) -> None:
        """The figures of one round. Raises KeyError for one that has no column."""
        known = {column.name for column in self.columns}
        values = self.rows.setdefault(row, {})
        for name, value in figures.items():
            if name not in known or len(row) != len(self.labels):
                raise KeyError(f"{self.name}: no column {name}, or no row {row}")
            values.setdefault(name, []).append(value)

    def median(self, row: Row, name: str) -> float | None:
        """Of all rounds; None where this was not measured."""
        values = self.rows.get(row, {}).get(name)
        return statistics.median(values) if values else None

    def text(self, row: Row, column: Column) -> str:
        """Median, and the spread where there is one: ``12.1 (11.8–13.0)``."""
        values = self.rows[row].get(column.name)
        if not values:
            return "–"
        low, middle, high = (
            number(value, column.digits) for value in (min(values), statistics.median(values), max(values))
        )
        return middle if low == high else f"{middle} ({low}–{high})"

    def markdown(self) -> str:
        """The table; columns in which nothing was measured are left out."""
        shown = [c for c in self.columns if any(figures.get(c.name) for figures in self.rows.values())]
        first = {column.unit: column for column in reversed(shown)}
        head = [*self.labels, *(c.full_heading if first[c.unit] is c else c.heading for c in shown)]
        lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        lines += [f"| {' | '.join([*row, *(self.text(row, c) for c in shown)])} |" for row in self.rows]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """For programs: shape in docs/performance.md."""
        return {
            "title": self.title,
            "labels": list(self.labels),
            "columns": [vars(column) for column in self.columns],
            "rows": [
                {
                    "labels": list(row),
                    "figures": {name: _summary(values) for name, values in figures.items()},
                }
                for row, figures in self.rows.items()
            ],
        }

    @classmethod
    def of_json(cls, name: str, data: dict[str, Any]) -> Self:
        """What `as_json` made. Raises KeyError, TypeError."""
        columns = tuple(Column(**column) for column in data["columns"])
        rows = {
            tuple(row["labels"]): {figure: list(of["values"]) for figure, of in row["figures"].items()}
            for row in data["rows"]
        }
        return cls(name, data["title"], tuple(data["labels"]), columns, rows)


def _summary(values: list[float]) -> dict[str, Any]:
    kept = [float(f"{value:.6g}") for value in values]
    return {"median": statistics.median(kept), "min": min(kept), "max": max(kept), "values": kept}


def number(value: float, digits: int) -> str:
    """A number for people: thousands apart, no negative zero."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:,.{digits}f}"
    return text.removeprefix("-") if not text.strip("-0.,") else text
