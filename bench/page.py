"""docs/performance.md: what the run writes between its markers, and the plots beside it."""

from __future__ import annotations

import statistics
from pathlib import Path

from bench import compare
from bench.document import Document

TREE = Path(__file__).resolve().parent.parent
PAGE = TREE / "docs/performance.md"
PLOTS = TREE / "docs/performance"
BEGIN, END = "<!-- ./dev bench --write: begin -->", "<!-- ./dev bench --write: end -->"


def between(text: str, new: str) -> str:
    """The page with ``new`` between its markers. Raises ValueError without them."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no markers of ./dev bench --write")
    return f"{before}{begin}\n{new.strip()}\n{end}{after}"


def machine(document: Document) -> str:
    """The sentence about what it ran on."""
    facts = ", ".join(document.machine.values())
    speed = [value * 1000 for value in document.yardstick]
    commit = f", commit {document.revision}" if document.revision else ""
    return (
        f"{document.taken[:10]}{commit}; {facts}. Medians of {document.rounds} rounds, smallest and largest "
        f"in brackets; {document.seconds / 60:.0f} minutes. Neighbours took {document.steal * 100:.0f} % of "
        f"the cores meanwhile; a fixed piece of work took {statistics.median(speed):.0f} ms of CPU "
        f"({min(speed):.0f}–{max(speed):.0f})."
    )


def text(taken: list[Document], percent: float, plots: dict[str, str]) -> str:
    """All that stands between the markers. plots: path of each table's, relative to the page."""
    first = taken[0]
    parts = [machine(first)]
    for name, table in first.tables.items():
        parts.append(f"### {table.title}\n\n{table.markdown()}")
        if name in plots:
            parts.append(f"![{table.title}]({plots[name]})")
    for second in taken[1:]:
        found = list(compare.differences(first, second))
        said = compare.verdict(first, second, found, percent / 100)
        parts.append(f"### The same again\n\nThe whole run once more, right after the first: {said}.")
        parts.append(compare.markdown(found, percent / 100))
    return "\n\n".join(parts)


def plot(document: Document, folder: Path) -> dict[str, Path]:
    """A plot of each table. Raises SystemExit where matplotlib is missing."""
    try:
        from bench import plots
    except ImportError as error:
        raise SystemExit(f"bench: plots need the extra `bench` (./dev setup installs it): {error}") from None
    folder.mkdir(parents=True, exist_ok=True)
    return {name: plots.save(table, folder / f"{name}.svg") for name, table in document.tables.items()}


def write(taken: list[Document], percent: float) -> None:
    """Tables into the page, plots beside it."""
    plots = {name: str(path.relative_to(PAGE.parent)) for name, path in plot(taken[0], PLOTS).items()}
    PAGE.write_text(between(PAGE.read_text(), text(taken, percent, plots)))
