"""TCP connect and a 64-byte echo, while nothing else goes on and beside a bulk flow of the same guest."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from bench.figures import Column, Table, quantile
from bench.guests import Guest, on_each_path
from bench.lab import Lab, Running, Work

COLUMNS = (
    Column("connect_p50_ms", "connect p50 ms", 1),
    Column("connect_p99_ms", "p99", 1),
    Column("echo_p50_ms", "echo p50 ms", 1),
    Column("echo_p99_ms", "p99", 1),
    Column("bulk_mbit_s", "bulk flow Mbit/s"),
)
MEANWHILE = {"idle": None, "bulk flow up": "bulk-up", "bulk flow down": "bulk-down"}


def table() -> Table:
    """Nothing measured yet."""
    return Table("latency", "Latency", ("path", "meanwhile"), COLUMNS)


def measuring(lab: Lab) -> AbstractContextManager[Callable[[Table], None]]:
    """A guest on each path; each call takes all of them in turn."""
    assert lab.peer is not None
    peer = lab.peer
    return on_each_path(
        lab, MEANWHILE, lambda meanwhile, guest: beside(MEANWHILE[meanwhile], guest, peer, lab.work)
    )


def beside(bulk: str | None, guest: Guest, peer: str, work: Work) -> dict[str, float]:
    """Both kinds of latency while ``bulk`` runs, and how fast that was."""
    figures: dict[str, float] = {}
    with ExitStack() as stack:
        flow: Running | None = None
        if bulk is not None:
            flow = guest.traffic(bulk, peer)
            stack.callback(flow.close)
            flow.start()
            flow.expect("running")
        for kind in ("connect", "echo"):
            # Connects to one server have a rate, which is not what is measured here.
            count = work.samples if kind == "echo" else work.samples // 3
            asking = guest.traffic(kind, peer, count, work.seconds)
            stack.callback(asking.close)
            asking.start()
            times = asking.result()
            figures |= {f"{kind}_p50_ms": quantile(times, 0.5), f"{kind}_p99_ms": quantile(times, 0.99)}
        if flow is not None:
            flow.start()
            figures["bulk_mbit_s"] = flow.result()
    return figures
