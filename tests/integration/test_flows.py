"""What guests' TCP and UDP flows come to: the gauges, connects that nobody answers, limits under rotation."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from support import addresses as at
from support import procfs
from support.nsguest import NamespaceGuest, ns_guest
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import raw_guest
from support.wait import until
from support.world import World

ACTIVE_TCP, ACTIVE_UDP = "l2_tcp_conns_active", "l2_udp_flows_active"
FAILED = "l2_tcp_connect_fail_total"
TIMEOUT_S = 1.0
NOWHERE = "93.184.216.99"  # routed to the internet, where nothing answers for it
SOON_S = 5.0

GREET = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.settimeout(0.2)
    for _ in range(100):
        s.sendto(b"the NAT is up", (sys.argv[1], int(sys.argv[2])))
        try:
            s.recv(100)
            break
        except TimeoutError:
            pass
"""
CONNECT = """
import json, socket, sys, time
def connect(address, port):
    began = time.monotonic()
    with socket.socket() as s:
        s.settimeout(20)
        try:
            s.connect((address, int(port)))
            said = s.recv(1) if len(sys.argv) > 3 else b""
            return ["connected", time.monotonic() - began]
        except OSError as error:
            return [type(error).__name__, time.monotonic() - began]
print(json.dumps(connect(*sys.argv[1:3])))
"""


@contextmanager
def swallowing(world: World) -> Iterator[None]:
    """The internet drops what goes to `NOWHERE` without a word."""
    world.internet.run("ip", "route", "add", "blackhole", NOWHERE)
    try:
        yield
    finally:
        world.internet.run("ip", "route", "del", "blackhole", NOWHERE)


@pytest.fixture
def impatient(world: World, proxy_as: RunAs) -> Iterator[Proxy]:
    """A proxy with a connect time-out of a second, in a world that has a black hole."""
    with (
        swallowing(world),
        run_proxy(world, proxy_as, {"AERO_L2_TCP_CONNECT_TIMEOUT_MS": "1000"}) as proxy,
    ):
        yield proxy


@asynccontextmanager
async def linux_guest(proxy: Proxy) -> AsyncIterator[NamespaceGuest]:
    async with proxy.tunnel() as tunnel, ns_guest(tunnel) as guest:
        await guest.run("python3", "-c", GREET, at.WEB, str(at.ECHO_PORT))
        yield guest


async def connect(guest: NamespaceGuest, address: str, port: int) -> tuple[str, float]:
    """How a connect of the guest ends, and after how many seconds."""
    outcome, seconds = json.loads(await guest.run("python3", "-c", CONNECT, address, str(port)))
    return str(outcome), float(seconds)


async def test_connect_that_nobody_answers_is_reset_in_time_and_counted_once(impatient: Proxy) -> None:
    async with linux_guest(impatient) as guest:
        outcome, seconds = await connect(guest, NOWHERE, 80)
        assert outcome == "ConnectionRefusedError"
        assert TIMEOUT_S * 0.9 <= seconds < 5 * TIMEOUT_S
        assert impatient.metric(FAILED) == 1
        await until(lambda: impatient.metric(ACTIVE_TCP) == 0, "the flow has ended", SOON_S)
        assert await connect(guest, at.WEB, at.HTTP_PORT) == ("connected", pytest.approx(0, abs=1))
        await asyncio.sleep(2.5)
        assert impatient.metric(FAILED) == 1
        assert impatient.metric("l2_policy_denied_total") == 0
