"""The table of guests in docs/guests.md: each guest's test records a row, and ``./dev guests`` prints them.

``zoo.py [pytest arguments]`` runs tests/integration/guests and, when all of it passed, writes the table anew
from the rows of this run and what the last ``./dev interop`` left, with the day of that. Needs the namespaces
of ``./dev test``.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
GUESTS = "tests/integration/guests"
PROGRAMS = "tests/interop"
ROWS = REPOSITORY / ".cache/guests/rows"
ROWS_VARIABLE = "AERO_L2_GUEST_ROWS"
"""Names the folder for the rows of this run, where it is not `ROWS`."""
PAGE = REPOSITORY / "docs/guests.md"
START = "<!-- the table: ./dev guests -->"
END = "<!-- end of the table -->"


@dataclass(frozen=True)
class Row:
    """What one guest was seen to do; ``lease`` to ``udp`` in two or three words, or "–" where it has no such
    client."""

    guest: str  # the name in the table, with a version where there is one
    stack: str  # whose TCP/IP it is
    card: str
    lease: str
    dns: str
    tcp: str
    udp: str
    seconds: float  # from process start to the end of its checks


def record(row: Row) -> None:
    """Keep the row of the test that runs, for the table; to be called after its assertions.

    A guest that is run twice, with the proxy started by root and by a user, keeps the later one.
    """
    folder = Path(os.environ.get(ROWS_VARIABLE, ROWS))
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder.parent.stat()
    os.chown(folder, owner.st_uid, owner.st_gid)  # a later run may be an ordinary user's
    test = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[0]
    target = folder / f"{_slug(row)}.json"
    new = target.with_name(f".new-{target.name}-{os.getpid()}")
    values = {"test": test, "taken": _today(), **asdict(row)}
    new.write_text(json.dumps(values, ensure_ascii=False, indent=1) + "\n")
    new.rename(target)


def _today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"


def forget(test: str) -> None:
    """Drop the rows of an earlier run of a test file, before it runs again: it may fail."""
    for path in ROWS.glob("*.json"):
        if json.loads(path.read_text())["test"] == test:
            path.unlink()


def _slug(row: Row) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"{row.guest} {row.card}".lower()).strip("-")


def table(kept: Iterable[dict[str, object]]) -> str:
    """The rows as Markdown, those of the same stack together; a guest's name leads to its test."""
    lines = [
        "| guest | network stack | card | lease | DNS | TCP | UDP | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = []
    for values in kept:
        row = Row(**{field.name: values[field.name] for field in fields(Row)})  # type: ignore[arg-type]
        rows.append((row.stack.lower(), row.guest.lower(), row.card.lower(), row, str(values["test"])))
    for *_, row, test in sorted(rows, key=lambda entry: entry[:3]):
        name = f"[{row.guest}](../{test})" if test else row.guest
        cells = (name, *astuple(row)[1:-1], f"{row.seconds:.{1 if row.seconds >= 1 else 2}f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(text: str, content: str) -> str:
    """The page with what is between the two markers replaced."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    assert start, f"{PAGE.name} has no line {START}"
    assert end, f"{PAGE.name} has no line {END}"
    return f"{before}{START}\n\n{content}\n\n{END}{after}"


def kept(folder: Path, below: str) -> list[dict[str, object]]:
    """The rows in a folder that tests below one of the repository recorded; not those of an older shape."""
    wanted = {"test", "taken", *(field.name for field in fields(Row))}
    rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [row for row in rows if set(row) == wanted and row["test"].startswith(f"{below}/")]


def without_row(rows: Iterable[dict[str, object]]) -> list[str]:
    """Guests' test files, as far as they are not among the rows."""
    files = {f"{GUESTS}/{path.name}" for path in (REPOSITORY / GUESTS).glob("test_*.py")}
    return sorted(files - {str(row["test"]) for row in rows})


def taken(programs: Iterable[dict[str, object]]) -> str:
    """When the rows were taken; those of programs keep the day of their own run."""
    days = sorted({str(row["taken"]) for row in programs})
    said = f"Taken on {_today()}, on {os.cpu_count()} cores"
    return f"{said}; the programs of `./dev interop` on {' and '.join(days)}." if days else f"{said}."


def main(arguments: Sequence[str]) -> int:
    """Run the guests and write the table; the exit status of pytest, 1 where a guest left no row."""
    ROWS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rows-", dir=ROWS.parent) as folder:
        command = [sys.executable, "-m", "pytest", *arguments, GUESTS]
        done = subprocess.run(command, cwd=REPOSITORY, env={**os.environ, ROWS_VARIABLE: folder})
        guests = kept(Path(folder), GUESTS)
    if done.returncode != 0:
        return done.returncode
    if missing := without_row(guests):
        print(f"{PAGE.name} stays as it is: no row was recorded by {', '.join(missing)}", file=sys.stderr)
        return 1
    programs = kept(ROWS, PROGRAMS)
    content = f"{taken(programs)}\n\n{table([*guests, *programs])}"
    PAGE.write_text(page(PAGE.read_text(), content))
    print(f"wrote {PAGE.relative_to(REPOSITORY)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
