"""What a setting costs, to a percent: `python -m bench.overhead NAME=VALUE`, as root, cut off from networks.

Two servers that differ in it, side by side; short transfers in turn, one through each, the other one first
every second time. The figure is the median of the pairs' ratios of the server's CPU time, with the interval
that holds it in 95 of 100 samplings of the pairs (bootstrap): a machine that is slower for a while is so for
both of a pair, and a single median of a few long transfers would be lost in its noise.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.guests import on_tunnel
from bench.lab import Lab, Work, local
from bench.settings import public
from bench.transfers import WAYS, transfer

SAMPLINGS = 2000


def interval(ratios: Sequence[float], seed: int = 1) -> tuple[float, float]:
    """Between what 95 of 100 medians of as many ratios, drawn from these again and again, are. Pure."""
    draw = random.Random(seed)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(SAMPLINGS))
    return medians[SAMPLINGS // 40], medians[-SAMPLINGS // 40]


def row(ratios: Sequence[float]) -> str:
    """The cells of a direction: by how many percent more, between what, of how many pairs. Pure."""
    low, high = interval(ratios)
    more = [100 * (value - 1) for value in (statistics.median(ratios), low, high)]
    return f"{more[0]:+.1f} % | {more[1]:+.1f} to {more[2]:+.1f} % | {len(ratios)}"


def pairs(lab: Lab, direction: str, count: int, size: int) -> tuple[list[float], float]:
    """The second server's CPU time for each transfer as a multiple of the first one's; its s/GB, median."""
    assert lab.peer is not None
    ratios, costs = [], []
    first, second = lab.servers
    with on_tunnel(first) as plain, on_tunnel(second) as other:
        for guest in (plain, other):
            transfer([guest], direction, lab.peer, size)
        for number in range(count):
            spent = {}
            for guest in (plain, other) if number % 2 else (other, plain):
                moved = transfer([guest], direction, lab.peer, size).spent
                spent[guest is other] = moved["server"].total + moved["netd"].total
            ratios.append(spent[True] / spent[False])
            costs.append(spent[False] / (size / 1e9))
    return ratios, statistics.median(costs)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=__doc__)
    parser.add_argument(
        "settings", nargs="+", metavar="NAME=VALUE", help="of the second server; {folder}: one for it"
    )
    parser.add_argument("--pairs", type=int, default=150)
    parser.add_argument("--megabytes", type=int, default=20, help="of each transfer")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="aero-l2-bench-") as folder:
        Path(folder).chmod(0o777)  # the service user writes there
        also = dict(given.replace("{folder}", folder).split("=", 1) for given in options.settings)
        with local(Work(), {}, also) as lab:
            print(
                f"server and netd, CPU time with {' '.join(f'{k}={v}' for k, v in public(also).items())}:\n"
            )
            print(
                "| direction | without, s/GB | more with it | 95 % interval | pairs |\n|---|---|---|---|---|"
            )
            for direction in WAYS:
                ratios, cost = pairs(lab, direction, options.pairs, options.megabytes * 1_000_000)
                print(f"| {direction} | {cost:.2f} | {row(ratios)} |", flush=True)


if __name__ == "__main__":
    main()
