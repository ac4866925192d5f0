"""The command line: `./dev bench`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
sys.path.insert(1, str(TREE / "tests"))

from support import cage  # noqa: E402

from bench import compare, many, options, outputs, page  # noqa: E402
from bench.document import Document, NotADocument  # noqa: E402
from bench.peer import main as peer  # noqa: E402
from bench.run import Order, take, to_stderr  # noqa: E402


def show(document: Document, path: Path | None) -> None:
    """Tables to standard output, JSON to its file. Raises SystemExit where that cannot be written."""
    print(document.markdown(), flush=True)
    if path is not None:
        text = json.dumps(document.as_json(), indent=1, ensure_ascii=False, allow_nan=False)
        try:
            with outputs.giving(path):
                path.write_text(text + "\n")
        except OSError as error:
            raise SystemExit(f"bench: {path}: {error.strerror}") from None


def load(path: Path) -> Document:
    """A run from its file. Raises SystemExit with what is wrong."""
    try:
        return Document.of_json(json.loads(path.read_text()))
    except OSError as error:
        raise SystemExit(f"bench: {path}: {error.strerror}") from None
    except NotADocument as error:
        raise SystemExit(f"bench: {path}: {error}") from None
    except ValueError:
        raise SystemExit(f"bench: {path} is not JSON, so no result of ./dev bench --json") from None


def judge(first: Document, second: Document, percent: float) -> bool:
    """Print how two runs differ; whether all of it is within."""
    if warning := compare.warning(first, second):
        print(f"{warning}\n")
    found = list(compare.differences(first, second))
    print(compare.markdown(found, percent / 100))
    print(compare.verdict(first, second, found, percent / 100), flush=True)
    return not compare.beyond(found, percent / 100)


def compare_files(words: list[str]) -> int:
    """The exit status of `compare`."""
    given = options.comparing().parse_args(words)
    first, second = load(given.first), load(given.second)
    if refusal := compare.refusal(first, second):
        raise SystemExit(f"bench: {refusal}")
    return 0 if judge(first, second, given.within) else 1


def measure(words: list[str]) -> int:
    """The exit status of a run."""
    given = options.parser().parse_args(words)
    order = options.order_of(given)
    if given.judge:
        return 0
    if given.plot is not None or given.write:
        page.need_plots()
    if said := options.left_out(order):
        to_stderr(said)
    cage.enter("bench")
    try:
        return runs(given, order)
    except KeyboardInterrupt as signal:
        to_stderr(f"ended by {signal}; all of it is undone")
        return 1


def runs(given: argparse.Namespace, order: Order) -> int:
    """All that were asked for; the exit status."""
    taken: list[Document] = []
    status = 0
    for number in range(1, given.repeat + 1):
        taken.append(take(order, to_stderr))
        show(taken[-1], given.json and options.numbered(given.json, number))
        if "many" in taken[-1].tables and many.all_failed(taken[-1].tables["many"]):
            to_stderr("many: every tunnel failed")
            status = 1
        if number > 1 and not judge(taken[0], taken[-1], given.within):
            status = 1
    if given.plot is not None:
        page.plot(taken[0], given.plot)
    if given.write:
        page.write(taken, given.within)
    return status


def main(words: list[str]) -> int:
    """The exit status: 1 where a comparison found differences beyond, or every one of many tunnels failed."""
    if words[:1] == ["peer"]:
        if {"-h", "--help"} & {*words}:
            print(
                "usage: ./dev bench peer ADDRESS\n\nServes guests until it is ended, on ADDRESS and no other."
            )
            return 0
        peer(words[1:])
        return 0
    return compare_files(words[1:]) if words[:1] == ["compare"] else measure(words)


def run(words: list[str]) -> int:
    """The same, and 2 where something could not be done, with a line that says why."""
    try:
        return main(words)
    except SystemExit as end:
        if not isinstance(end.code, str):
            raise
        print(end.code, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
