"""What a setting costs, to a percent: `python -m bench.overhead NAME=VALUE`, as root, cut off from networks.

Each round starts three servers, in another order than the round before: one without the setting, one with
it, and a second one without it, for control. They take short transfers in turn, and a round's figure is the
median of what one needs of another's CPU time for the same transfer: a machine that is slower for a while is
so for all three. Servers have the first processor to themselves, and all else the last one: left to the
scheduler, servers that are alike differ by several percent. They differ a little, too, by what their memory
happens to look like, for as long as they live; so the figure is the mean of the rounds, with the interval
that holds it in 95 of 100 samplings of them (bootstrap). The control says how much of it is chance.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.guests import Guest, on_tunnel
from bench.lab import Lab, Work, local, started
from bench.settings import public
from bench.transfers import WAYS, transfer

SAMPLINGS = 2000
WITHOUT, WITH, CONTROL = "without", "with", "control"
ORDERS = ((WITHOUT, WITH, CONTROL), (CONTROL, WITHOUT, WITH), (WITH, CONTROL, WITHOUT))


def mean(ratios: Sequence[float]) -> float:
    """The geometric one. Pure."""
    return math.exp(statistics.fmean(map(math.log, ratios)))


def interval(ratios: Sequence[float], seed: int = 1) -> tuple[float, float]:
    """Between what 95 of 100 means of as many ratios, drawn from these again and again, are. Pure."""
    draw = random.Random(seed)
    means = sorted(mean(draw.choices(ratios, k=len(ratios))) for _ in range(SAMPLINGS))
    return means[SAMPLINGS // 40], means[-SAMPLINGS // 40]


def more(ratios: Sequence[float]) -> str:
    """By how many percent more, and between what. Pure."""
    low, high = interval(ratios)
    return "{:+.1f} % ({:+.1f} to {:+.1f})".format(*(100 * (one - 1) for one in (mean(ratios), low, high)))


def spent(guest: Guest, direction: str, peer: str, size: int) -> float:
    """CPU seconds of server and netd for a transfer."""
    moved = transfer([guest], direction, peer, size).spent
    return moved["server"].total + moved["netd"].total


def pin(pids: Iterable[int], which: int) -> None:
    """Have processes, and what they start from now on, run on one of the machine's processors."""
    cores = sorted(os.sched_getaffinity(1))
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), {cores[which]})


def once(lab: Lab, number: int, settings: Mapping[str, str], size: int, count: int) -> dict[str, Costs]:
    """A round: CPU seconds of each server for its transfers, by direction."""
    assert lab.world is not None
    assert lab.peer is not None
    order = ORDERS[number % len(ORDERS)]
    with ExitStack() as stack:
        guests: dict[str, Guest] = {}
        for name in order:
            server = stack.enter_context(started(name, lab.world, settings if name == WITH else {}))
            pin(server.processes(), 0)
            guests[name] = stack.enter_context(on_tunnel(server))
            pin({guests[name].processes["nat"]}, -1)
        found: dict[str, Costs] = {}
        for direction in WAYS:
            for guest in guests.values():
                transfer([guest], direction, lab.peer, size)
            costs: Costs = defaultdict(list)
            for turn in range(count):
                for name in ORDERS[turn % len(ORDERS)]:
                    costs[name].append(spent(guests[name], direction, lab.peer, size))
            found[direction] = costs
        return found


Costs = dict[str, list[float]]
"""CPU seconds of each server for the transfers of a round, in their order."""


def ratio(costs: Costs, name: str) -> float:
    """The median of what that server needs of the CPU time of the one without. Pure."""
    return statistics.median(one / other for one, other in zip(costs[name], costs[WITHOUT], strict=True))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=__doc__)
    parser.add_argument("settings", nargs="+", metavar="NAME=VALUE", help="{folder}: one for the server")
    parser.add_argument("--rounds", type=int, default=18)
    parser.add_argument("--transfers", type=int, default=9, help="of each server, each way, in a round")
    parser.add_argument("--megabytes", type=int, default=20, help="of each transfer")
    parser.add_argument("--raw", type=Path, metavar="FILE", help="for every CPU time that was measured")
    options = parser.parse_args()
    pin({os.getpid()}, -1)
    given = dict(setting.split("=", 1) for setting in options.settings)
    with tempfile.TemporaryDirectory(prefix="aero-l2-bench-") as folder, local(Work(), {}, {}) as lab:
        Path(folder).chmod(0o777)  # the service user writes there
        settings = {name: value.replace("{folder}", folder) for name, value in given.items()}
        size = options.megabytes * 1_000_000
        rounds = [once(lab, number, settings, size, options.transfers) for number in range(options.rounds)]
    if options.raw:
        options.raw.write_text(json.dumps(rounds))
    shown = " ".join(f"{name}={value}" for name, value in public(given).items())
    print(f"server and netd, CPU time with {shown}, {options.rounds} rounds:\n")
    print("| direction | without, s/GB | more with it | control |\n|---|---|---|---|")
    for direction in WAYS:
        cost = statistics.median(one * 1e9 / size for found in rounds for one in found[direction][WITHOUT])
        cells = [more([ratio(found[direction], name) for found in rounds]) for name in (WITH, CONTROL)]
        print(f"| {direction} | {cost:.2f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
