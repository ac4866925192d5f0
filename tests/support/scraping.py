"""Scrapes of a running proxy: how long each takes, and how long a tunnel waits for its PONG meanwhile."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.proxy import Proxy
from support.tunnel import Tunnel

_IDLE = Path(__file__).with_name("idle.py")
_SCRAPER = """
import json, sys, time, urllib.request
took = []
for _ in range(int(sys.argv[2])):
    begun = time.perf_counter()
    size = len(urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/metrics", timeout=60).read())
    took.append(time.perf_counter() - begun)
print(json.dumps([took, size]))
"""


@dataclass(frozen=True)
class Scraped:
    """Seconds, sorted: of each scrape, of each PING beside them and of those before. bytes: of one scrape."""

    scrapes: list[float]
    pings: list[float]
    pings_before: list[float]
    bytes: int


@contextmanager
def crowd(proxy: Proxy, count: int) -> Iterator[None]:
    """So many idle tunnels, of a program of their own."""
    words = (str(_IDLE), *map(str, (proxy.port, count, 8, 0)))
    program = subprocess.Popen(
        proxy.world.host.enter(sys.executable, *words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert program.stdout is not None
        said = json.loads(program.stdout.readline())
        assert len(said["times"]) == count, said["errors"][:3]
        yield
    finally:
        program.kill()
        program.wait(10)
        for stream in (program.stdin, program.stdout):
            assert stream is not None
            stream.close()


async def _pong(tunnel: Tunnel, answered: int) -> None:
    """Wait for one more, looked for in each turn of the loop: an event would tell a turn later."""
    while len(tunnel.pongs) == answered:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def scraped(proxy: Proxy, scrapes: int) -> Scraped:
    """Scrape so often, one after the other, by a program of its own, beside a tunnel that always pings."""
    async with proxy.tunnel() as tunnel:

        async def ping() -> float:
            begun, answered = time.perf_counter(), len(tunnel.pongs)
            await tunnel.send_message(b"\xa2\x03\x01\x00beside")
            await _pong(tunnel, answered)
            return time.perf_counter() - begun

        before = sorted([await ping() for _ in range(1000)])
        words = proxy.world.host.enter(sys.executable, "-c", _SCRAPER, str(proxy.port), str(scrapes))
        program = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE)
        assert program.stdout is not None
        ending = asyncio.ensure_future(program.stdout.read())
        beside = []
        while not ending.done():
            beside.append(await ping())
        took, size = json.loads(await ending)
        assert await program.wait() == 0
        return Scraped(sorted(took), sorted(beside), before, size)
