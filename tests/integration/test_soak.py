"""Many clients of many kinds at once: nothing is left of them, and none keeps another waiting."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import pytest
from support import addresses as at
from support.floods import BLAST_PORT
from support.load import ATTACKER_NICE, BYSTANDER_NICE, serving
from support.loadclient import ECHO_PORT
from support.proxy import Proxy, run_proxy
from support.tunnel import RefusedError
from support.wait import wait_until
from support.world import World

from aero_l2.client.address import Target
from bench import peer
from bench.lab import Running, Server
from soak.held import staying
from soak.run import Mix, Order, work
from soak.verdict import of_clients

pytestmark = [pytest.mark.slow, pytest.mark.alone]

TREE = Path(__file__).parents[2]
LIMIT = 64  # AERO_L2_MAX_CONNECTIONS, the default
SECONDS = 30.0  # of which a busy machine takes some until all tunnels are open
MIX = Mix(bulk_up=4, bulk_down=4, interactive=40, churn=0, abusive=0, flooding=16)


def test_ninety_seconds_of_clients_leave_nothing_and_find_nothing_wrong() -> None:
    words = ("--warm-up", "30", "--minutes", "1")
    done = subprocess.run(
        [sys.executable, "-m", "soak", *words], cwd=TREE, capture_output=True, text=True, timeout=400
    )
    print(done.stdout)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "nothing is left, nothing was wrong" in done.stderr


async def _is_refused(proxy: Proxy) -> str:
    try:
        async with proxy.tunnel():
            return "a tunnel"
    except RefusedError as refusal:
        return str(refusal)


async def test_as_many_tunnels_as_the_default_allows_under_mixed_load_are_neither_closed_nor_starved(
    world: World,
) -> None:
    """A quarter of them floods, each in another way; eight carry all that goes through them."""
    assert sum(vars(MIX).values()) == LIMIT
    with ExitStack() as stack:
        far = Running(world.internet.enter(sys.executable, "-m", "bench.peer", peer.UNTIL_EOF, at.WEB))
        stack.callback(far.close)
        stack.enter_context(serving(world.internet, BYSTANDER_NICE, "echo", ECHO_PORT))
        stack.enter_context(serving(world.internet, ATTACKER_NICE, "blast", BLAST_PORT))
        proxy = stack.enter_context(run_proxy(world, "root"))
        server = Server("tunnel", Target.of(proxy.url, origin=""), world.host, proxy)
        thread = stack.enter_context(ThreadPoolExecutor(1))
        working = thread.submit(
            work, world, server, staying(server), Order(SECONDS, mix=MIX), SECONDS, lambda text: None
        )
        wait_until(
            lambda: working.done() or proxy.metric("l2_sessions_active") == LIMIT, "all tunnels are open", 120
        )
        assert not working.done(), "all tunnels were never open together"
        refused = await _is_refused(proxy)
        samples, good, bad, mbit_s = working.result(300)
    for name, times in good.times.items():
        print(f"{name}: {len(times)} times, {median(times):.0f} ms, the slowest {max(times):.0f}")
    print(mbit_s, max(sample.tunnels for sample in samples))
    assert refused == "429 max connections exceeded"
    assert "\n".join(of_clients(good, bad, mbit_s)) == ""
    closed = [line for line in proxy.log.splitlines() if '"tunnel closed"' in line]
    ends = {'"reason": "peer_closed"', '"reason": "peer_gone"'}
    assert [line for line in closed if not any(end in line for end in ends)] == []
    assert len(closed) == LIMIT
