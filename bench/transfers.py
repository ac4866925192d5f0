"""Bulk TCP, up and down: through one tunnel and four at once, and wired straight to slirp4netns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from bench.clocks import Cpu, cpu_of
from bench.figures import Column, Table
from bench.guests import Guest, on_tunnel, straight
from bench.lab import Lab, Running

PROCESSES = ("server", "netd", "nat", "card")
COLUMNS = (
    Column("mbit_s", "Mbit/s"),
    Column("server_s_per_gb", "server CPU s/GB", 1, compared=True),
    Column("server_user_s_per_gb", "of it user", 1),
    Column("server_system_s_per_gb", "system", 1),
    Column("netd_s_per_gb", "netd", 1, compared=True),
    Column("nat_s_per_gb", "slirp4netns", 1, compared=True),
    Column("nat_user_s_per_gb", "of it user", 1),
    Column("nat_system_s_per_gb", "system", 1),
    Column("card_s_per_gb", "client", 1),
)
FOUR = 4


def table() -> Table:
    """Nothing measured yet."""
    return Table("transfers", "Bulk TCP", ("path", "direction"), COLUMNS)


@contextmanager
def measuring(lab: Lab) -> Iterator[Callable[[Table], None]]:
    """Guests on all paths; each call takes every path in turn, both ways."""
    assert lab.peer is not None
    peer, size = lab.peer, lab.work.megabytes * 1_000_000
    with ExitStack() as stack:
        paths: list[tuple[str, list[Guest]]] = []
        for server in lab.servers:
            guests = [stack.enter_context(on_tunnel(server)) for _ in range(FOUR)]
            paths += [(server.name, guests[:1]), (f"four of: {server.name}", guests)]
        if lab.world is not None:
            wired = [stack.enter_context(straight(lab.world.host)) for _ in range(FOUR)]
            paths += [("straight wire", wired[:1]), ("four straight wires", wired)]
        for _, guests in paths:
            for direction in ("up", "down"):
                transfer(guests, direction, peer, 1_000_000)

        def once(into: Table) -> None:
            for direction in ("up", "down"):
                for name, guests in paths:
                    into.add((name, direction), transfer(guests, direction, peer, size))

        yield once


def transfer(guests: list[Guest], direction: str, peer: str, size: int) -> dict[str, float]:
    """``size`` bytes in all, through all guests at once: the figures of a round."""
    share = size // len(guests)
    running: list[Running] = []
    try:
        running += [guest.traffic(direction, peer, share) for guest in guests]
        before, began = used(guests), time.monotonic()
        for one in running:
            one.start()
        for one in running:
            one.result()
        seconds, after = time.monotonic() - began, used(guests)
    finally:
        for one in running:
            one.close()
    moved = share * len(guests)
    return {"mbit_s": moved * 8 / 1e6 / seconds, **costs(before, after, moved / 1e9, "s_per_gb")}


def used(guests: list[Guest]) -> dict[str, Cpu]:
    """CPU time so far of each kind of process behind the guests."""
    return {
        kind: cpu_of({guest.processes[kind] for guest in guests})
        for kind in PROCESSES
        if all(kind in guest.processes for guest in guests)
    }


def costs(before: dict[str, Cpu], after: dict[str, Cpu], amount: float, unit: str) -> dict[str, float]:
    """CPU time for each ``amount``, by process; split for the two that do the work."""
    found = {}
    for kind, now in after.items():
        spent = now.since(before[kind])
        found[f"{kind}_{unit}"] = spent.total / amount
        if kind in ("server", "nat"):
            found[f"{kind}_user_{unit}"] = spent.user / amount
            found[f"{kind}_system_{unit}"] = spent.system / amount
    return found
