"""A plot of each table: medians as bars, smallest and largest as whiskers. All that needs matplotlib."""

from __future__ import annotations

import statistics
from pathlib import Path

import matplotlib

from bench.figures import Table

matplotlib.use("svg")
from matplotlib import pyplot

# Text as text: a tenth of the size. The salt keeps two plots of one run the same.
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "aero-l2", "font.size": 8})

Panel = tuple[str, dict[str, str]]
"""What the axis says; figures, and what the legend calls them."""
PANELS: dict[str, tuple[Panel, ...]] = {
    "transfers": (
        ("Mbit/s", {"mbit_s": "all flows together"}),
        ("CPU s/GB", {"server_s_per_gb": "server", "nat_s_per_gb": "slirp4netns", "card_s_per_gb": "client"}),
    ),
    "latency": (
        ("connect, ms", {"connect_p50_ms": "p50", "connect_p99_ms": "p99"}),
        ("echo, ms", {"echo_p50_ms": "p50", "echo_p99_ms": "p99"}),
    ),
    "packets": (
        ("packets/s", {"received_per_s": "arrived"}),
        ("CPU s per million", {"server_s_per_million": "server", "nat_s_per_million": "slirp4netns"}),
    ),
    "opening": (("ms", {"p50_ms": "p50", "p99_ms": "p99"}), ("tunnels/s", {"tunnels_per_s": "opened"})),
    "memory": (("MiB a tunnel", {"processes_mib": "processes", "kernel_mib": "kernel"}),),
    "many": (
        ("s", {"opened_s": "opened", "closed_s": "closed"}),
        ("MiB a tunnel", {"processes_mib": "processes", "kernel_mib": "kernel"}),
    ),
}
LOGARITHMIC = ("latency",)


def save(table: Table, path: Path) -> Path:
    """Draw it as SVG; returns the file's path."""
    panels = PANELS[table.name]
    rows = list(table.rows)
    height = 0.9 + 0.4 * len(rows)
    figure, axes = pyplot.subplots(1, len(panels), figsize=(9, height), sharey=True, squeeze=False)
    for axis, (label, figures) in zip(axes[0], panels, strict=True):
        _bars(axis, table, figures)
        axis.set_xlabel(label)
        if table.name in LOGARITHMIC:
            axis.set_xscale("log")
        if len(figures) > 1:
            axis.legend(frameon=False)
    first = axes[0][0]
    first.set_yticks(range(len(rows)), [", ".join(row) for row in rows])
    first.invert_yaxis()
    figure.suptitle(table.title)
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return path


def _bars(axis: matplotlib.axes.Axes, table: Table, figures: dict[str, str]) -> None:
    """One bar for each figure of each row."""
    width = 0.8 / len(figures)
    for number, (name, legend) in enumerate(figures.items()):
        measured = [(at, values[name]) for at, values in enumerate(table.rows.values()) if values.get(name)]
        middles = [statistics.median(values) for _, values in measured]
        spread = [
            [middle - min(values) for middle, (_, values) in zip(middles, measured, strict=True)],
            [max(values) - middle for middle, (_, values) in zip(middles, measured, strict=True)],
        ]
        places = [at - 0.4 + (number + 0.5) * width for at, _ in measured]
        axis.barh(places, middles, width, xerr=spread, label=legend, error_kw={"linewidth": 0.7})
