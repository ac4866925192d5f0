"""The command line: `./dev soak`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
sys.path.insert(1, str(TREE / "tests"))

from support import cage  # noqa: E402

from bench import settings  # noqa: E402
from soak.run import WARM_UP_S, Order, soak  # noqa: E402
from soak.verdict import faults, markdown  # noqa: E402


def parser() -> argparse.ArgumentParser:
    """Of a run."""
    made = argparse.ArgumentParser(
        prog="./dev soak",
        description="Many clients of many kinds on one server, in namespaces that nothing leaves. Then it "
        "has to hold what it held before. Exit status: 1 where something was wrong.",
    )
    made.add_argument(
        "--minutes",
        type=float,
        default=30.0,
        metavar="N",
        help=f"how long, after a warm-up of {WARM_UP_S:.0f} s or a sixth of it (30)",
    )
    made.add_argument(
        "--warm-up", type=float, metavar="SECONDS", help=f"before that ({WARM_UP_S:.0f}, or a sixth of it)"
    )
    made.add_argument("--seed", type=int, default=1, metavar="N", help="of what is left to chance (1)")
    made.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the server; repeatable"
    )
    return made


def say(text: str) -> None:
    """A line of progress."""
    print(f"soak: {text}", file=sys.stderr, flush=True)


def main(words: list[str]) -> int:
    """The exit status."""
    given = parser().parse_args(words)
    chosen = dict(entry.partition("=")[::2] for entry in given.set)
    if fault := settings.fault(chosen):
        say(f"--set: {fault}")
        return 2
    warm_up_s = max(WARM_UP_S, 10 * given.minutes) if given.warm_up is None else given.warm_up
    if given.minutes <= 0 or warm_up_s < 0:
        say("--minutes is more than 0, --warm-up is not negative")
        return 2
    cage.enter("soak")
    try:
        seen = soak(Order(60 * given.minutes, warm_up_s, settings=chosen, seed=given.seed), say)
    except KeyboardInterrupt as signal:
        say(f"ended by {signal}; all of it is undone")
        return 1
    print(markdown(seen), flush=True)
    wrong = faults(seen)
    for text in wrong:
        say(f"FAULT: {text}")
    say(f"{len(wrong)} faults" if wrong else "nothing is left, nothing was wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
