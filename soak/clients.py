"""Well-behaved clients, one process for all: ``python -m soak.clients``.

Reads an `Assignment` as a line of JSON, prints ``ready``, waits for a line, works, and prints a `Result`.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from aero_l2.client import ClientError, LimitReached, Options, Unavailable, connect
from aero_l2.probe import steps
from aero_l2.probe.guest import Guest, attach
from aero_l2.probe.outcome import StepFailed
from aero_l2.probe.targets import ProbeTarget, parse_target

PATIENCE_S = 15.0
"""For one thing a guest does: beyond that it has failed. Others' floods and a busy machine cost less."""
THINK_S = 0.3
KEPT_TIMES = 100_000
_OPTIONS = Options(origin="http://soak.test", open_timeout_s=30, proxy=False)


@dataclass(frozen=True)
class Assignment:
    """What to do. targets: of `aero_l2.probe.targets`; kinds: how many clients of each kind."""

    url: str
    seconds: float
    kinds: dict[str, int]
    targets: list[str]
    name: str
    seed: int


@dataclass
class Result:
    """What came of it. times: milliseconds, by kind of client and what it did. faults: what must not be."""

    times: dict[str, list[float]] = field(default_factory=dict)
    did: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def took(self, kind: str, seconds: float) -> None:
        """Note a time; of a very long run the first ones only."""
        times = self.times.setdefault(kind, [])
        if len(times) < KEPT_TIMES:
            times.append(round(seconds * 1000, 2))

    def fault(self, text: str) -> None:
        """Note what must not be; the first ones in words."""
        self.did["faults"] += 1
        if len(self.faults) < 20:
            self.faults.append(text)


class Client:
    """One client of one kind."""

    def __init__(self, order: Assignment, kind: str, number: int, result: Result) -> None:
        self._order = order
        self._kind = kind
        self._name = f"{kind} {number}"
        self._chance = random.Random(f"{order.seed} {self._name}")
        self._targets = [parse_target(text) for text in order.targets]
        self._result = result
        self._doing = "opening"
        self._end = time.monotonic() + order.seconds

    @property
    def is_over(self) -> bool:
        """Whether it is time to go."""
        return time.monotonic() >= self._end

    async def run(self, once: Callable[[Client], Awaitable[None]]) -> None:
        """The same again and again. What goes wrong is noted, and it begins anew."""
        while not self.is_over:
            try:
                await once(self)
            except (LimitReached, Unavailable) as error:
                if self._kind != "churn":
                    self._result.fault(f"{self._name}: {error}")
                self._result.did[f"{self._kind}: refused"] += 1
                await asyncio.sleep(1)
            except (ClientError, StepFailed, TimeoutError) as error:
                self._result.fault(f"{self._name}, {self._doing}: {str(error) or type(error).__name__}")
                await asyncio.sleep(1)

    async def stay(self) -> None:
        """One tunnel until the end: somebody at work, a little at a time."""
        async with connect(self._order.url, _OPTIONS) as tunnel, attach(tunnel) as guest:
            router = await self._lease(guest)
            while not self.is_over:
                await self._timed(self._anything(guest, router))
                await asyncio.sleep(min(self._chance.expovariate(1 / THINK_S), 5 * THINK_S))
                if tunnel.ended is not None:
                    raise tunnel.ended

    async def come_and_go(self) -> None:
        """A tunnel, a lease, one thing or two, and gone."""
        began = time.monotonic()
        async with connect(self._order.url, _OPTIONS) as tunnel, attach(tunnel) as guest:
            router = await self._lease(guest)
            self._result.took("set-up", time.monotonic() - began)
            for _ in range(self._chance.randrange(3)):
                await self._timed(self._anything(guest, router))

    async def _lease(self, guest: Guest) -> IPv4Address:
        """The gateway's address, which is the name server's, too."""
        self._doing = "lease"
        async with asyncio.timeout(PATIENCE_S):
            given, _ = await steps.lease(guest, steps.Progress("no lease"))
        return given.router

    async def _timed(self, work: Awaitable[object]) -> None:
        began = time.monotonic()
        async with asyncio.timeout(PATIENCE_S):
            await work
        self._result.took(f"{self._kind}: {self._doing}", time.monotonic() - began)

    async def _anything(self, guest: Guest, router: IPv4Address) -> None:
        """One thing that guests do."""
        what = self._chance.choice(("ping", "names", "names over TCP", *self._targets))
        self._doing = what if isinstance(what, str) else what.scheme.value
        match what:
            case "ping":
                await steps.echo(guest, router)
            case "names":
                await steps.dns(guest, router, self._order.name, lenient=False)
            case "names over TCP":
                await steps.dns_over_tcp(guest, router, self._order.name)
            case ProbeTarget():
                assert isinstance(what.host, IPv4Address)
                await steps.reach(guest, what, what.host)


KINDS: dict[str, Callable[[Client], Awaitable[None]]] = {
    "interactive": Client.stay,
    "churn": Client.come_and_go,
}


async def work(order: Assignment) -> Result:
    """All of them at once; they begin one after the other."""
    result = Result()

    async def one(kind: str, number: int) -> None:
        await asyncio.sleep(0.02 * number)
        await Client(order, kind, number, result).run(KINDS[kind])

    async with asyncio.TaskGroup() as group:
        for kind, count in order.kinds.items():
            for number in range(count):
                group.create_task(one(kind, number))
    return result


def serve(work: Callable[[Assignment], Awaitable[Result]]) -> None:
    """Be such a process."""
    order = Assignment(**json.loads(sys.stdin.readline()))
    print("ready", flush=True)
    sys.stdin.readline()

    async def whole() -> Result:
        return await work(order)

    print(json.dumps(vars(asyncio.run(whole()))), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    serve(work)
