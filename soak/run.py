"""A whole soak: the world, the clients, what is held before, meanwhile and afterwards."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from support import addresses as at
from support.floods import BLAST_PORT
from support.load import ATTACKER_NICE, BYSTANDER_NICE, serving
from support.loadclient import ECHO_PORT
from support.proxy import run_proxy
from support.wait import wait_until
from support.world import World, world

from aero_l2.client.address import Target
from bench import peer
from bench.guests import on_tunnel
from bench.lab import Running, Server
from soak.clients import Assignment, Result
from soak.held import Held, live_blocks, staying, when_settled
from soak.verdict import Sample, Soaked

WARM_UP_S = 30.0
"""Of more than that, ahead of the first look: what is loaded and filled once is no growth."""
SAMPLE_S = 5.0
LEAVE_S = 120.0
"""For everything to be gone."""


@dataclass(frozen=True)
class Mix:
    """How many clients of each kind. flooding: on one tunnel each to the end; in_step: all with one flood
    at a time; the abusive flood, too, by chance and for seconds, and do everything else that is no good."""

    bulk_up: int = 2
    bulk_down: int = 2
    interactive: int = 24
    churn: int = 6
    abusive: int = 8
    flooding: int = 0
    in_step: int = 0

    def harder(self) -> Mix:
        """More churn, and more that abuse it in one way at once than can come together by chance, so that the
        server's heap becomes as large as it gets."""
        return replace(self, churn=2 * self.churn, in_step=2 * self.abusive)


@dataclass(frozen=True)
class Order:
    """What to do. seed: of everything that is left to chance."""

    seconds: float
    warm_up_s: float = WARM_UP_S
    mix: Mix = field(default_factory=Mix)
    settings: dict[str, str] = field(default_factory=dict)
    seed: int = 1


def soak(order: Order, say: Callable[[str], None]) -> Soaked:
    """The run. Raises Failed where a client could not do its work at all."""
    with _place(order.settings) as (built, server):
        say(f"warming up for {order.warm_up_s:.0f} s")
        proxy = server.proxy
        assert proxy is not None
        pids = staying(server)
        warm, *_ = work(built, server, pids, replace(order, mix=order.mix.harder()), order.warm_up_s, say)
        most = max((sum(look.held.own.values()) for look in warm), default=0.0)
        say(f"own memory of all three was up to {most:.1f} MiB")
        before, blocks = when_settled(server, pids), live_blocks(server)
        logged = len(proxy.log)
        say(f"{order.seconds / 60:.1f} minutes from here")
        samples, good, bad, mbit_s = work(built, server, pids, order, order.seconds, say)
        after = when_settled(server, pids, before)
        lines = proxy.log[logged:].splitlines()
        return Soaked(
            order.seconds, before, samples, after, (blocks, live_blocks(server)), good, bad, mbit_s, lines
        )


@contextmanager
def _place(settings: dict[str, str]) -> Iterator[tuple[World, Server]]:
    """A closed world with a server in it; its log is the verdict's."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aero-l2-soak-")))
        folder.chmod(0o755)
        built = stack.enter_context(world(folder))
        far = Running(built.internet.enter(sys.executable, "-m", "bench.peer", peer.UNTIL_EOF, at.WEB))
        stack.callback(far.close)
        stack.enter_context(serving(built.internet, BYSTANDER_NICE, "echo", ECHO_PORT))
        stack.enter_context(serving(built.internet, ATTACKER_NICE, "blast", BLAST_PORT))
        proxy = stack.enter_context(run_proxy(built, "root", settings))
        yield built, Server("tunnel", Target.of(proxy.url, origin=""), built.host, proxy)
        with contextlib.redirect_stderr(io.StringIO()):  # the verdict has looked at its log
            stack.close()


def work(
    built: World,
    server: Server,
    pids: dict[str, int],
    order: Order,
    seconds: float,
    say: Callable[[str], None],
) -> tuple[list[Sample], Result, Result, dict[str, list[float]]]:
    """All clients for a time, until nothing of them is left."""
    mix = order.mix
    with ExitStack() as stack:
        bulk: dict[str, list[Running]] = {}
        for way, count in (("bulk-up", mix.bulk_up), ("bulk-down", mix.bulk_down)):
            bulk[way] = [_bulk(stack, server, way) for _ in range(count)]
        kinds = {"interactive": mix.interactive, "churn": mix.churn}
        good = _clients(stack, server, order, seconds, "soak.clients", 0, kinds)
        kinds = {"abusive": mix.abusive, "flooding": mix.flooding, "in step": mix.in_step}
        bad = _clients(stack, server, order, seconds, "soak.abuse", ATTACKER_NICE, kinds)
        for one in (good, bad):
            one.start()
        samples = _watch(built, server, pids, seconds, say)
        results = [_result(one.result(seconds + LEAVE_S)) for one in (good, bad)]
        mbit_s = {way: [_ended(flow) for flow in flows] for way, flows in bulk.items()}
    wait_until(lambda: not server.nats(), "every tunnel is undone", LEAVE_S)
    return samples, results[0], results[1], mbit_s


def _bulk(stack: ExitStack, server: Server, way: str) -> Running:
    """A guest with a stack of Linux's own, and a flow that is at its speed."""
    guest = stack.enter_context(on_tunnel(server))
    flow = guest.traffic(way, at.WEB)
    stack.callback(flow.close)
    flow.start()
    flow.expect("running")
    return flow


def _ended(flow: Running) -> float:
    flow.start()
    return float(flow.result())


def _clients(
    stack: ExitStack,
    server: Server,
    order: Order,
    seconds: float,
    module: str,
    nice: int,
    kinds: dict[str, int],
) -> Running:
    targets = [f"tcp-echo://{at.WEB}:{peer.ECHO}", f"udp-echo://{at.WEB}:{ECHO_PORT}"]
    todo = Assignment(server.target.url, seconds, kinds, targets, "web.example.test", order.seed)
    command = ["nice", "-n", str(nice), *server.client(module)]
    running = Running(command, told=json.dumps(asdict(todo)))
    stack.callback(running.close)
    return running


def _result(data: dict[str, Any]) -> Result:
    return Result(**{**data, "did": Counter(data["did"])})


def _watch(
    built: World, server: Server, pids: dict[str, int], seconds: float, say: Callable[[str], None]
) -> list[Sample]:
    """Look at it now and then, until the time is over."""
    samples: list[Sample] = []
    began = last_said = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        time.sleep(min(SAMPLE_S, seconds - passed))
        for services in (built.internet_services, built.host_services, built.other_services):
            services.events.clear()  # nobody asks for them, and they are many
        samples.append(Sample(time.monotonic() - began, len(server.nats()), Held.by(server, pids)))
        if time.monotonic() - last_said > 60:
            last_said = time.monotonic()
            own = ", ".join(f"{role} {mib:.1f}" for role, mib in samples[-1].held.own.items())
            say(f"{samples[-1].at_s / 60:.0f} min: {samples[-1].tunnels} tunnels; MiB: {own}")
    return samples
