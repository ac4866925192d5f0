"""The table of guests in docs/guests.md: each guest's test records a row, and ``./dev guests`` prints them.

``zoo.py [pytest arguments]`` runs tests/integration/guests and, when all of it passed, writes the table anew
from the rows of this run and what ``./dev interop`` left. Needs the namespaces of ``./dev test``.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
GUESTS = "tests/integration/guests"
ROWS = REPOSITORY / ".cache/guests/rows"
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
    ROWS.mkdir(parents=True, exist_ok=True)
    owner = ROWS.parent.stat()
    os.chown(ROWS, owner.st_uid, owner.st_gid)  # a later run may be an ordinary user's
    test = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[0]
    target = ROWS / f"{_slug(row)}.json"
    new = target.with_name(f".new-{target.name}-{os.getpid()}")
    new.write_text(json.dumps({"test": test, **asdict(row)}, ensure_ascii=False, indent=1) + "\n")
    new.rename(target)


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


def kept() -> list[dict[str, object]]:
    """The rows that were recorded so far."""
    return [json.loads(path.read_text()) for path in sorted(ROWS.glob("*.json"))]


def _forget_earlier_runs() -> None:
    for path in ROWS.glob("*.json"):
        if json.loads(path.read_text())["test"].startswith(f"{GUESTS}/"):
            path.unlink()


def main(arguments: list[str]) -> int:
    """Run the guests and write the table; the exit status of pytest."""
    _forget_earlier_runs()
    done = subprocess.run([sys.executable, "-m", "pytest", *arguments, GUESTS], cwd=REPOSITORY)
    if done.returncode == 0:
        taken = f"Taken on {datetime.now(UTC):%Y-%m-%d}, on {os.cpu_count()} cores."
        PAGE.write_text(page(PAGE.read_text(), f"{taken}\n\n{table(kept())}"))
        print(f"wrote {PAGE.relative_to(REPOSITORY)}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
