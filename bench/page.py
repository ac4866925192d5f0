"""docs/performance.md: what the run writes between its markers, and the plots beside it."""

from __future__ import annotations

import importlib.util
import os
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import compare, outputs
from bench.document import Document

PAGE = outputs.TREE / "docs/performance.md"
PLOTS = outputs.TREE / "docs/performance"
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
        f"{document.taken[:10]}{commit}; {facts}. {_servers(document)}Medians of {document.rounds} rounds, "
        f"smallest and largest in brackets; {document.seconds / 60:.0f} minutes. The hypervisor gave "
        f"{document.steal * 100:.0f} % of the cores' time to others meanwhile; a fixed piece of work took "
        f"{statistics.median(speed):.0f} ms of CPU ({min(speed):.0f}–{max(speed):.0f})."
    )


def _servers(document: Document) -> str:
    said = [
        f"{what} {' '.join(f'{name}={value}' for name, value in settings.items())}. "
        for what, settings in (("Server with", document.settings), ("A second one with", document.also))
        if settings
    ]
    return "".join(said)


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
    """A plot of each table."""
    with home_of_its_own():
        from bench import plots

        outputs.folder(folder)
        made = {name: folder / f"{name}.svg" for name in document.tables}
        for name, table in document.tables.items():
            with outputs.giving(made[name]):
                plots.save(table, made[name])
    return made


@contextmanager
def home_of_its_own() -> Iterator[None]:
    """Matplotlib and fontconfig keep caches in the home, which through sudo is still the caller's."""
    variables = ("HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    before = {name: os.environ[name] for name in variables if name in os.environ}
    with tempfile.TemporaryDirectory(prefix="aero-l2-bench-home-") as home:
        try:
            os.environ.update(dict.fromkeys(variables, home))
            yield
        finally:
            for name in variables:
                del os.environ[name]
            os.environ.update(before)


def need_plots() -> None:
    """Raises SystemExit where matplotlib is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        raise SystemExit(
            "bench: plots need bench/requirements.lock, which ./dev bench installs for --plot and --write"
        )


def fault() -> str | None:
    """Why the page cannot be written."""
    try:
        between(PAGE.read_text(), "")
    except (OSError, ValueError) as error:
        return str(error)
    return outputs.fault_of_file(PAGE) or outputs.fault_of_folder(PLOTS)


def write(taken: list[Document], percent: float) -> None:
    """Tables into the page, plots beside it."""
    plots = {name: str(path.relative_to(PAGE.parent)) for name, path in plot(taken[0], PLOTS).items()}
    PAGE.write_text(between(PAGE.read_text(), text(taken, percent, plots)))
