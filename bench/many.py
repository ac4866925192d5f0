"""Many tunnels of one server: opened, idle, closed, and what is left of them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support import procfs
from support.wait import wait_until

from bench.clocks import cpu_of
from bench.figures import Column, Table, quantile
from bench.lab import Lab, Running, Server, openings
from bench.memory import Sizes
from bench.openings import limit_s

AT_ONCE = 8
COLUMNS = (
    Column("opened_s", "opened in s", 1),
    Column("offer_p50_ms", "offer p50 ms"),
    Column("offer_p99_ms", "p99"),
    Column("failed", "failed"),
    Column("idle_server_percent", "idle: server CPU %", 1),
    Column("idle_nat_percent", "all slirp4netns", 1),
    Column("processes_mib", "MiB a tunnel: processes", 2),
    Column("kernel_mib", "kernel", 2),
    Column("closed_s", "closed in s", 1),
    Column("left_processes", "left: processes"),
    Column("left_descriptors", "descriptors"),
    Column("left_namespaces", "namespaces"),
    Column("left_links", "links"),
)


def table() -> Table:
    """Nothing measured yet."""
    return Table("many", "Many tunnels", ("tunnels", "servers"), COLUMNS)


@dataclass(frozen=True)
class Held:
    """What a server's processes hold."""

    processes: int
    descriptors: int
    namespaces: int
    links: int

    @classmethod
    def by(cls, servers: list[Server]) -> Held:
        """Now. links: of the host, and of every namespace that one of the processes has open."""
        pids = sorted({pid for server in servers for pid in server.processes()})
        usage = procfs.usage(pids)
        return cls(usage.processes, usage.descriptors, usage.namespaces, _links(pids))

    def left(self, before: Held) -> dict[str, float]:
        """What is more than before."""
        return {f"left_{name}": value - getattr(before, name) for name, value in vars(self).items()}


def _links(pids: list[int]) -> int:
    held: dict[str, str] = {}
    for pid in pids:
        paths = [f"/proc/{pid}/ns/net", *map(str, Path(f"/proc/{pid}/fd").iterdir())]
        held |= {name: path for path in paths if (name := procfs.link_of(path)).startswith("net:[")}
    shown = (
        subprocess.run(
            ["nsenter", f"--net={path}", "ip", "-oneline", "link"], capture_output=True, check=True
        )
        for path in held.values()
    )
    return sum(len(one.stdout.splitlines()) for one in shown)


@contextmanager
def measuring(lab: Lab) -> Iterator[Callable[[Table], None]]:
    """Each call starts a server of its own for it."""

    count = lab.work.many

    def once(into: Table) -> None:
        if lab.world is None:
            into.add((f"{count:,}", "1"), seen_from_outside(lab.server, count))
            return
        with lab.fresh_servers(count) as servers:
            into.add((f"{count:,}", str(len(servers))), whole_life(servers, count, lab.work.seconds))

    yield once


def whole_life(servers: list[Server], count: int, idle_s: float) -> dict[str, float]:
    """Open, leave alone, close."""
    _warm_up(servers)
    before, sizes = Held.by(servers), Sizes(*servers)
    running = openings(servers, count, AT_ONCE)
    try:
        running.start()
        figures = _opened(running, count)
        figures |= Sizes(*servers).per_tunnel(sizes, count)
        figures |= _idle(servers, max(2.0, 2 * idle_s))
        began = time.monotonic()
        running.start()
        running.result()
        wait_until(lambda: not any(server.nats() for server in servers), "every tunnel is undone", 300)
        figures["closed_s"] = time.monotonic() - began
    finally:
        running.close()
    del figures["nat_own_mib"]
    return figures | _left(servers, before)


def seen_from_outside(server: Server, count: int) -> dict[str, float]:
    """What a client can tell of it."""
    running = openings([server], count, AT_ONCE)
    try:
        running.start()
        figures = _opened(running, count)
        running.start()
        return {**figures, "closed_s": running.result()["seconds"]}
    finally:
        running.close()


def _warm_up(servers: list[Server]) -> None:
    """The first tunnels load what all share."""
    running = openings(servers, 2 * AT_ONCE, AT_ONCE)
    try:
        running.start()
        running.result()
    finally:
        running.close()
    wait_until(lambda: not any(server.nats() for server in servers), "the first tunnels are undone", 60)


def _opened(running: Running, count: int) -> dict[str, float]:
    result = running.result(limit_s(count))
    for error in result["errors"]:
        print(f"bench: a tunnel failed: {error}", file=sys.stderr)
    figures = {"opened_s": result["seconds"], "failed": result["failed"]}
    if times := result["times"]:
        figures |= {"offer_p50_ms": quantile(times, 0.5), "offer_p99_ms": quantile(times, 0.99)}
    return figures


def all_failed(taken: Table) -> bool:
    """Whether in some round no tunnel got an offer."""
    return any(len(row["failed"]) > len(row.get("offer_p50_ms", ())) for row in taken.rows.values())


def _idle(servers: list[Server], seconds: float) -> dict[str, float]:
    mains = [server.proxy.one("server") for server in servers if server.proxy is not None]
    nats = {pid for server in servers for pid in server.nats()}
    before, nats_before, began = cpu_of(mains).total, cpu_of(nats).total, time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - began
    return {
        "idle_server_percent": 100 * (cpu_of(mains).total - before) / passed,
        "idle_nat_percent": 100 * (cpu_of(nats).total - nats_before) / passed,
    }


def _left(servers: list[Server], before: Held) -> dict[str, float]:
    """What is left once it has stopped to become less; after a minute at the latest."""
    end = time.monotonic() + 60
    while any((left := Held.by(servers).left(before)).values()) and time.monotonic() < end:
        time.sleep(0.2)
    return left
