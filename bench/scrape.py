"""Scraping with many tunnels: `python -m bench.scrape --tunnels 1000`, as root and cut off from the network.

Goals: a scrape under 100 ms, the loop never blocked for more than 5 ms. What blocks the loop delays a
tunnel's PONG, so the longest round trip beside scrapes bounds it, with all else that delays one; the slices
that a rendering is made in are measured by themselves, too, in this process.
The numbers of ADR 24 are of a busy machine, its table of a script that is not here: compare your own runs.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from support.proxy import run_proxy
from support.scraping import Scraped, crowd, scraped
from support.world import world

from aero_l2.config import load
from aero_l2.door.pressure import Pressure
from aero_l2.observe.metrics import Metrics
from aero_l2.observe.scrape import Scrapes
from aero_l2.quota.host import Host
from bench.figures import Column, quantile

COLUMNS = (
    Column("scrape_p50_ms", "scrape p50 ms", 1),
    Column("scrape_p99_ms", "p99 ms", 1),
    Column("scrape_max_ms", "longest ms", 1),
    Column("kib", "KiB", 0),
    Column("before_p99_ms", "PING without scrapes: p99 ms", 1),
    Column("before_max_ms", "longest ms", 1),
    Column("ping_p99_ms", "PING beside scrapes: p99 ms", 1),
    Column("ping_max_ms", "longest ms", 1),
)


def row(found: Scraped) -> dict[str, float]:
    """What the table shows of it."""
    return {
        "scrape_p50_ms": 1000 * quantile(found.scrapes, 0.5),
        "scrape_p99_ms": 1000 * quantile(found.scrapes, 0.99),
        "scrape_max_ms": 1000 * found.scrapes[-1],
        "kib": found.bytes / 1024,
        "before_p99_ms": 1000 * quantile(found.pings_before, 0.99),
        "before_max_ms": 1000 * found.pings_before[-1],
        "ping_p99_ms": 1000 * quantile(found.pings, 0.99),
        "ping_max_ms": 1000 * found.pings[-1],
    }


async def slices(times: int = 200) -> list[float]:
    """Seconds of the longest turn of the loop in each of so many renderings, with looks at the host."""
    metrics = Metrics()
    settings = load({"AERO_L2_OPEN": "1", "AERO_L2_INSECURE_ALLOW_NO_AUTH": "1"}).settings
    pressure = Pressure(settings, metrics, Host().room, lambda: 1000)
    scrapes, longest = Scrapes(metrics, pressure.look), []
    for _ in range(times):
        rendering, worst, last = scrapes.ask(), 0.0, time.perf_counter()
        while not rendering.done():
            await asyncio.sleep(0)
            now = time.perf_counter()
            worst, last = max(worst, now - last), now
        longest.append(worst)
    return longest


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.scrape")
    parser.add_argument("--tunnels", type=int, default=1000)
    parser.add_argument("--scrapes", type=int, default=50)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, world(Path(directory)) as lab:
        settings = {"AERO_L2_MAX_CONNECTIONS": "0", "AERO_L2_LOG_LEVEL": "warning"}
        lab.host.run("sysctl", "-q", "-w", "net.ipv4.ip_local_port_range=1024 65535")
        with run_proxy(lab, "root", settings) as proxy, crowd(proxy, given.tunnels):
            found = asyncio.run(scraped(proxy, given.scrapes))
    turns = asyncio.run(slices())
    for share in (0.5, 0.99, 1.0):
        print(f"{f'longest slice, {share:.0%} of scrapes, ms':40} {1000 * quantile(turns, share):.2f}")
    for column in COLUMNS:
        print(f"{column.full_heading:40} {row(found)[column.name]:.{column.digits}f}")


if __name__ == "__main__":
    main()
