"""Bulk TCP, up and down: through one tunnel and four at once, and wired straight to slirp4netns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from bench.clocks import Cpu, cpu_of
from bench.figures import Column, Row, Table
from bench.guests import Guest, on_tunnel, straight
from bench.lab import Lab, Running

PROCESSES = ("server", "netd", "nat", "card")
UNIT = "CPU s/GB"
COLUMNS = (
    Column("mbit_s", "Mbit/s"),
    Column("server_s_per_gb", "server", 1, compared=True, unit=UNIT),
    Column("server_user_s_per_gb", "of it user", 1),
    Column("server_system_s_per_gb", "system", 1),
    Column("netd_s_per_gb", "netd", 1, compared=True, unit=UNIT),
    Column("nat_s_per_gb", "slirp4netns", 1, compared=True, unit=UNIT),
    Column("nat_user_s_per_gb", "of it user", 1),
    Column("nat_system_s_per_gb", "system", 1),
    Column("card_s_per_gb", "client", 1, unit=UNIT),
)
FOUR = 4
WAYS = ("up", "down")


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
            paths += [(server.name, guests[:1]), (server.name.replace("tunnel", "four tunnels", 1), guests)]
        if lab.world is not None:
            wired = [stack.enter_context(straight(lab.world.host)) for _ in range(FOUR)]
            paths += [("straight wire", wired[:1]), ("four straight wires", wired)]
        for _, guests in paths:
            for direction in WAYS:
                transfer(guests, direction, peer, 1_000_000)

        def once(into: Table) -> None:
            moved: dict[Row, Moved] = {}
            for _ in range(lab.work.pieces):
                for direction in WAYS:
                    lab.note_speed()
                    for name, guests in paths:
                        piece = transfer(guests, direction, peer, size // lab.work.pieces)
                        row: Row = (name, direction)
                        moved[row] = moved[row] + piece if row in moved else piece
            for row, whole in moved.items():
                into.add(row, whole.figures(split=lab.work.split))

        yield once


@dataclass(frozen=True)
class Moved:
    """Bytes that were moved, in how many seconds, for how much CPU time of each kind of process."""

    size: int
    seconds: float
    spent: dict[str, Cpu]

    def __add__(self, other: Moved) -> Moved:
        """Both, one after the other."""
        spent = {kind: cpu + other.spent[kind] for kind, cpu in self.spent.items()}
        return Moved(self.size + other.size, self.seconds + other.seconds, spent)

    def figures(self, *, split: bool = True) -> dict[str, float]:
        """Of a round."""
        return {
            "mbit_s": self.size * 8 / 1e6 / self.seconds,
            **costs(self.spent, self.size / 1e9, "s_per_gb", split=split),
        }


def transfer(guests: list[Guest], direction: str, peer: str, size: int) -> Moved:
    """``size`` bytes in all, through all guests at once."""
    share = size // len(guests)
    running: list[Running] = []
    try:
        running += [guest.traffic(direction, peer, share) for guest in guests]
        before, began = used(guests), time.monotonic()
        for one in running:
            one.start()
        for one in running:
            one.result()
        seconds, spent = time.monotonic() - began, since(before, guests)
    finally:
        for one in running:
            one.close()
    return Moved(share * len(guests), seconds, spent)


def since(before: dict[str, Cpu], guests: list[Guest]) -> dict[str, Cpu]:
    """CPU time that was used meanwhile."""
    return {kind: now.since(before[kind]) for kind, now in used(guests).items()}


def used(guests: list[Guest]) -> dict[str, Cpu]:
    """CPU time so far of each kind of process behind the guests."""
    return {
        kind: cpu_of({guest.processes[kind] for guest in guests})
        for kind in PROCESSES
        if all(kind in guest.processes for guest in guests)
    }


def costs(spent: dict[str, Cpu], amount: float, unit: str, *, split: bool) -> dict[str, float]:
    """CPU time for each ``amount``, by process; user and system for the two that do the work."""
    found = {}
    for kind, cpu in spent.items():
        found[f"{kind}_{unit}"] = cpu.total / amount
        if split and kind in ("server", "nat"):
            found[f"{kind}_user_{unit}"] = cpu.user / amount
            found[f"{kind}_system_{unit}"] = cpu.system / amount
    return found
