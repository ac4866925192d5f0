"""A client that opens many tunnels: ``python -m bench.openings COUNT AT_ONCE URL…``.

Prints ``ready``, waits for a line, opens COUNT tunnels, AT_ONCE at a time, of all servers in turn, and prints
as JSON what it took and the milliseconds from TCP connect to DHCP offer of each. Keeps them until another
line comes, then closes them and prints the seconds that took.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import ssl
import sys
import time

from aero_l2.client.address import Credential, Target
from bench import wire

PATIENCE_S = 60
"""For one tunnel: beyond that it has failed."""


def target_of(url: str) -> Target:
    """The address with what the environment says of credential and Origin."""
    token = os.environ.get("AERO_L2_CLIENT_TOKEN")
    return Target.of(url, Credential(token) if token else None, os.environ.get("AERO_L2_BENCH_ORIGIN"))


class Openings:
    """Opens tunnels and keeps them."""

    def __init__(self, targets: list[Target], at_once: int) -> None:
        self._targets = targets
        self._tls = ssl.create_default_context() if any(one.is_tls for one in targets) else None
        self._at_once = at_once
        self._writers: list[asyncio.StreamWriter] = []
        self.times: list[float] = []
        self.errors: list[str] = []

    async def run(self, count: int) -> None:
        """Open them all."""
        numbers = iter(range(count))

        async def worker() -> None:
            for number in numbers:
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        self.times.append(await self._one(number))
                except (OSError, TimeoutError, wire.TunnelRefused, asyncio.IncompleteReadError) as error:
                    self.errors.append(repr(error))

        await asyncio.gather(*(worker() for _ in range(self._at_once)))

    async def _one(self, number: int) -> float:
        target = self._targets[number % len(self._targets)]
        tls = self._tls if target.is_tls else None
        request, question = wire.request(target), wire.discover(number)
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection(*wire.endpoint(target), ssl=tls)
        self._writers.append(writer)
        writer.write(request)
        wire.check_answer(target, await reader.readuntil(b"\r\n\r\n"))
        writer.write(question)
        frames = wire.Frames()
        while data := await reader.read(65536):
            if any(wire.offer_in(frame, number) is not None for frame in frames.feed(data)):
                return (time.perf_counter() - began) * 1000
        raise wire.TunnelRefused("the tunnel was closed before there was an offer")

    async def close(self) -> None:
        """Close them all, without a close frame, as a browser whose tab is closed does."""
        for writer in self._writers:
            writer.close()
        for writer in self._writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _line() -> None:
    await asyncio.to_thread(sys.stdin.readline)


async def main(count: int, at_once: int, urls: list[str]) -> None:
    """Open, wait, close."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    openings = Openings([target_of(url) for url in urls], at_once)
    _say("ready")
    await _line()
    began = time.monotonic()
    await openings.run(count)
    errors = openings.errors
    took = {"seconds": time.monotonic() - began, "times": openings.times}
    _say(json.dumps({**took, "failed": len(errors), "errors": errors[:10]}))
    await _line()
    began = time.monotonic()
    await openings.close()
    _say(json.dumps({"seconds": time.monotonic() - began}))
    await _line()


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
