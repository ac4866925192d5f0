"""One run as a document: what was measured, when, on what. Pure; the JSON of ``--json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from bench.figures import Table

FORMAT = 2
"""Counted up whenever a reader of an older document would misread a new one."""


class NotADocument(ValueError):
    """A file is no result of `./dev bench`; the text says why."""


@dataclass
class Document:
    """A run.

    taken: UTC, ISO 8601. server: the address measured, or ``local``. settings, also: what was set, and for
    the second server besides, without secrets. yardstick: CPU seconds of a fixed piece of work, all through
    the run (`bench.clocks.yardstick`): the machine's speed. steal: share of the cores' time that the
    hypervisor gave to others.
    """

    taken: str
    revision: str
    server: str
    settings: dict[str, str]
    also: dict[str, str]
    rounds: int
    quick: bool
    seconds: float
    machine: dict[str, str]
    yardstick: list[float]
    steal: float
    tables: dict[str, Table]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        plain = {name: value for name, value in vars(self).items() if name != "tables"}
        tables = {name: table.as_json() for name, table in self.tables.items()}
        return {"format": FORMAT, **plain, "tables": tables}

    @classmethod
    def of_json(cls, data: Any) -> Self:
        """What `as_json` made. Raises NotADocument."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise NotADocument(f'no result of ./dev bench of this version ("format": {FORMAT})')
        try:
            tables = {name: Table.of_json(name, table) for name, table in data["tables"].items()}
            plain = {name: data[name] for name in cls.__dataclass_fields__ if name != "tables"}
        except (KeyError, TypeError, AttributeError) as error:
            raise NotADocument(f"a result of ./dev bench with something missing: {error}") from None
        return cls(**plain, tables=tables)

    def markdown(self) -> str:
        """All tables, with their titles."""
        return "\n\n".join(f"### {table.title}\n\n{table.markdown()}" for table in self.tables.values())
