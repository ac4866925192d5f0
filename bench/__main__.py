"""The command line: `./dev bench`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
sys.path.insert(1, str(TREE / "tests"))

from aero_l2.client.address import Credential, InvalidTarget, Target  # noqa: E402
from bench import compare, page  # noqa: E402
from bench.document import Document, NotADocument  # noqa: E402
from bench.peer import serve  # noqa: E402
from bench.run import NEED_PEER, PARTS, Order, take, to_stderr  # noqa: E402

EPILOG = """
./dev bench compare A.json B.json [--within PERCENT]   by how much the CPU medians of two runs differ
./dev bench peer ADDRESS                               the far end for --peer: where guests reach it

AERO_L2_CLIENT_TOKEN, AERO_L2_BENCH_ORIGIN: credential and Origin for --url.
"""


def _setting(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text}: NAME=VALUE")
    return name, value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: 1 or more")
    return value


def parser() -> argparse.ArgumentParser:
    """Of a run."""
    made = argparse.ArgumentParser(
        prog="./dev bench",
        description="Measures a whole server, in namespaces that nothing leaves, and prints medians.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("--rounds", type=_positive, help="values of each figure (5; with --quick 1)")
    add("--quick", action="store_true", help="little of everything, in half a minute: to see that it works")
    add("--only", action="append", choices=PARTS, default=[], help="this, and no other; repeatable")
    add(
        "--json",
        type=Path,
        metavar="FILE",
        help="the run as JSON; the n-th of --repeat goes to FILE's name-n",
    )
    add("--write", action="store_true", help="put tables and plots into docs/")
    add("--plot", type=Path, metavar="FOLDER", help="a plot of each table (pip install -e '.[bench]')")
    add("--repeat", type=_positive, default=1, help="so many runs, each compared with the first")
    add("--within", type=float, default=15, metavar="PERCENT", help="for --repeat and compare (15)")
    add("--set", type=_setting, action="append", default=[], metavar="NAME=VALUE", help="a setting")
    add(
        "--also",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a second server with it",
    )
    add("--tunnels", type=_positive, help="of `many` (1000)")
    add("--url", help="measure this server from outside; nothing else is contacted")
    add("--peer", metavar="ADDRESS", help="with --url: where `./dev bench peer` runs, as its guests reach it")
    return made


def order_of(given: argparse.Namespace) -> Order:
    """What the options come to. Raises SystemExit with what is wrong."""
    target = None
    if given.url is not None:
        token = os.environ.get("AERO_L2_CLIENT_TOKEN")
        try:
            credential = Credential(token) if token else None
            target = Target.of(given.url, credential, os.environ.get("AERO_L2_BENCH_ORIGIN"))
        except InvalidTarget as error:
            raise SystemExit(f"bench: {error}") from None
        if given.set or given.also or given.write:
            raise SystemExit("bench: --set, --also and --write are for a server of its own, not for --url")
    elif given.peer:
        raise SystemExit("bench: --peer goes with --url")
    order = Order(
        rounds=given.rounds or (1 if given.quick else 5),
        quick=given.quick,
        only=tuple(given.only),
        settings=dict(given.set),
        also=dict(given.also),
        tunnels=given.tunnels,
        target=target,
        peer=given.peer,
    )
    if target is not None and given.peer is None:
        to_stderr(f"without --peer nothing is sent through a tunnel: no {', '.join(NEED_PEER)}")
    if not order.parts():
        raise SystemExit("bench: none of that can be measured of a server elsewhere like this")
    return order


def show(document: Document, path: Path | None) -> None:
    """Tables to standard output, JSON to its file."""
    print(document.markdown(), flush=True)
    if path is not None:
        path.write_text(json.dumps(document.as_json(), indent=1, ensure_ascii=False) + "\n")


def load(path: str) -> Document:
    """A run from its file. Raises SystemExit with what is wrong."""
    try:
        return Document.of_json(json.loads(Path(path).read_text()))
    except (OSError, ValueError, NotADocument) as error:
        raise SystemExit(f"bench: {path}: {error}") from None


def judge(first: Document, second: Document, percent: float) -> bool:
    """Print how two runs differ; whether all of it is within."""
    found = list(compare.differences(first, second))
    print(compare.markdown(found, percent / 100))
    print(compare.verdict(first, second, found, percent / 100), flush=True)
    return not compare.beyond(found, percent / 100)


def main(words: list[str]) -> int:
    """The exit status: 1 where a comparison found differences beyond."""
    if words[:1] == ["peer"]:
        if len(words) != 2:
            raise SystemExit("bench: peer takes one address to listen on")
        serve(words[1])
        return 0
    if words[:1] == ["compare"]:
        made = argparse.ArgumentParser(prog="./dev bench compare")
        made.add_argument("first")
        made.add_argument("second")
        made.add_argument("--within", type=float, default=15, metavar="PERCENT")
        given = made.parse_args(words[1:])
        return 0 if judge(load(given.first), load(given.second), given.within) else 1
    given = parser().parse_args(words)
    order = order_of(given)
    taken: list[Document] = []
    agree = True
    for number in range(1, given.repeat + 1):
        taken.append(take(order, to_stderr))
        path = given.json
        show(taken[-1], path if path is None or number == 1 else path.with_stem(f"{path.stem}-{number}"))
        if number > 1:
            agree = judge(taken[0], taken[-1], given.within) and agree
    if given.plot is not None:
        page.plot(taken[0], given.plot)
    if given.write:
        page.write(taken, given.within)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
