"""The table of every metric in docs/metrics.md: `python -m aero_l2.observe.metrics.reference`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import Metric

from aero_l2.observe.metrics import Metrics

HEADING: Final = "| metric | type | labels | meaning |\n|---|---|---|---|\n"


def markdown() -> str:
    """The table, one row for each metric in the order of /metrics."""
    metrics = Metrics()
    metrics.describe_build("", "", "")
    families = list(metrics.registry.collect())
    return HEADING + "".join(f"{row(family)}\n" for family in families)


def row(family: Metric) -> str:
    """A metric's row: name as exposed, type, each label with its values, help text."""
    suffix = "_total" if family.type == "counter" else ""
    labels = "; ".join(f"`{name}`: {_values(values)}" for name, values in _labels(family)) or "–"
    return f"| `{family.name}{suffix}` | {family.type} | {labels} | {family.documentation} |"


def _labels(family: Metric) -> Iterator[tuple[str, list[str]]]:
    names = {name: None for sample in family.samples for name in sample.labels if name != "le"}
    for name in names:
        yield name, list(dict.fromkeys(sample.labels[name] for sample in family.samples))


def _values(values: list[str]) -> str:
    """Those that are fixed; of the build's labels each has one value, which the installation gives."""
    return ", ".join(f"`{value}`" for value in values) if len(values) > 1 else "one value"


if __name__ == "__main__":
    print(markdown(), end="")
