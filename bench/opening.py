"""Set-up: from TCP connect to the DHCP offer, one tunnel after the other and many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support.wait import wait_until

from bench.figures import Column, Table, quantile
from bench.lab import Failed, Lab, Server, openings
from bench.openings import limit_s

COLUMNS = (
    Column("p50_ms", "p50 ms", 1),
    Column("p99_ms", "p99", 1),
    Column("best_ms", "best", 1),
    Column("tunnels_per_s", "tunnels/s"),
)
AT_ONCE = (1, 8, 50)


def table() -> Table:
    """Nothing measured yet."""
    return Table("opening", "From TCP connect to DHCP offer", ("at once",), COLUMNS)


@contextmanager
def measuring(lab: Lab) -> Iterator[Callable[[Table], None]]:
    """Each call opens tunnels at every concurrency, and closes them."""

    def once(into: Table) -> None:
        for at_once in AT_ONCE:
            figures = opened(lab.server, max(lab.work.openings, at_once), at_once)
            into.add((str(at_once),), figures)

    yield once


def opened(server: Server, count: int, at_once: int) -> dict[str, float]:
    """Open so many, keep them until all are open, and wait until all are undone."""
    known = server.nats()
    running = openings([server], count, at_once)
    try:
        running.start()
        result = running.result(limit_s(count))
        if result["failed"]:
            raise Failed(f"{result['failed']} of {count} tunnels failed: {result['errors'][0]}")
        running.start()
        running.result()
    finally:
        running.close()
    wait_until(lambda: server.nats() <= known, "the tunnels are undone", 120)
    times = result["times"]
    return {
        "p50_ms": quantile(times, 0.5),
        "p99_ms": quantile(times, 0.99),
        "best_ms": min(times),
        "tunnels_per_s": count / result["seconds"],
    }
