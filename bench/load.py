"""What a hostile guest costs the others: ``sudo .venv/bin/python bench/load.py``.

One guest floods its tunnel, as fast as the WebSocket takes it, with every kind of tests/support/floods.py
in turn; two others send a datagram each 4 ms to an echo in the test internet and back, through NAT and
all. Everything runs in namespaces of its own; nothing leaves the machine. Clients and echo are processes of
their own with another priority (tests/support/load.py), since they stand for machines elsewhere.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support import cage
from support.floods import ALL
from support.load import Attack, RoundTrips, load
from support.proxy import run_proxy
from support.world import world


def median(values: list[float]) -> float:
    """The median of some rounds."""
    return statistics.median(values)


def timed(trips: list[RoundTrips]) -> str:
    """Columns p50, p99, longest and lost of several rounds: medians, but the longest of all."""
    longest = max(seen.times[-1] for seen in trips)
    lost = sum(seen.lost for seen in trips)
    p50, p99 = (median([getattr(seen, name) for seen in trips]) for name in ("p50", "p99"))
    return f"{p50:.1f} | {p99:.1f} | {longest:.0f} | {lost}"


def row(attacks: list[Attack]) -> str:
    """A line of the table."""
    busy = {
        name: median([100 * (a.after.cpu[name] - a.before.cpu[name]) / a.seconds for a in attacks])
        for name in ("server", "netd", "nat")
    }
    grown = {
        name: f"{(attacks[-1].after.rss[name] - attacks[0].before.rss[name]) / 1024:+.1f}" for name in busy
    }
    last = attacks[-1].after
    return " | ".join(
        (
            f"| {attacks[0].kind} | {median([a.frames / a.seconds for a in attacks]) / 1000:.1f}",
            timed([a.bystanders for a in attacks]),
            f"{busy['server']:.0f} | {busy['nat']:.0f}",
            f"{grown['server']} | {grown['netd']} | {grown['nat']}",
            f"{last.conntrack} | {last.descriptors['nat']} | {last.fragments} |",
        )
    )


def main() -> None:
    """Measure every kind in turn, as often as there are rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--kind", action="append", help="only those whose name has this in it")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting")
    options = parser.parse_args()
    kinds = [kind for kind in ALL if not options.kind or any(part in kind for part in options.kind)]
    settings = dict(entry.split("=", 1) for entry in options.set)
    cage.enter("load")
    idle: list[RoundTrips] = []
    attacks: dict[str, list[Attack]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as directory, world(Path(directory)) as built:
        Path(directory).chmod(0o755)
        for _ in range(options.rounds):
            for kind in kinds:
                with run_proxy(built, "user", settings) as proxy, load(proxy) as made:
                    idle.append(made.idle(options.seconds / 2))
                    attacks[kind].append(made.attack(kind, options.seconds))
    print(
        "\n| flood | 1,000 frames/s | others' p50 ms | p99 | longest | lost | server CPU % | its NAT % "
        "| MiB server | netd | its NAT | conntrack | NAT's descriptors | fragments KiB |"
    )
    print("|---|" + "---|" * 13)
    print(f"| none | 0 | {timed(idle)} | | | | | | | | |")
    for made_attacks in attacks.values():
        print(row(made_attacks))


if __name__ == "__main__":
    main()
