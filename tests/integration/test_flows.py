"""What guests' TCP and UDP flows come to: the gauges, connects that nobody answers, limits under rotation."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from scapy.layers.inet import IP, TCP
from support import addresses as at
from support import procfs
from support.nsguest import NamespaceGuest, ns_guest
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import raw_guest
from support.wait import until
from support.world import World

ACTIVE_TCP, ACTIVE_UDP = "l2_tcp_conns_active", "l2_udp_flows_active"
FAILED = "l2_tcp_connect_fail_total"
TIMEOUT_S = 3.0
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

# Opens connections and UDP flows, holds them, and closes the connections.
HOLD = """
import socket, sys, time
address, tcp_port, udp_port, tcp, udp = sys.argv[1], *map(int, sys.argv[2:])
flows = [socket.create_connection((address, tcp_port), 50) for _ in range(tcp)]
for _ in range(udp):
    flows.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    flows[-1].sendto(b"x", (address, udp_port))
time.sleep(3)
"""
OPEN = (at.WEB, str(at.ECHO_PORT), str(at.DISCARD_PORT))


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
    """A proxy with a short connect time-out, in a world that has a black hole."""
    with (
        swallowing(world),
        run_proxy(world, proxy_as, {"AERO_L2_TCP_CONNECT_TIMEOUT_MS": f"{TIMEOUT_S * 1000:.0f}"}) as proxy,
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


@pytest.mark.slow
async def test_connect_that_nobody_answers_is_reset_in_time_and_counted_once(impatient: Proxy) -> None:
    async with linux_guest(impatient) as guest:
        outcome, seconds = await connect(guest, NOWHERE, 80)
        assert outcome == "ConnectionRefusedError"
        assert TIMEOUT_S * 0.9 <= seconds < 5 * TIMEOUT_S
        assert impatient.metric(FAILED) == 1
        await until(lambda: impatient.metric(ACTIVE_TCP) == 0, "the flow has ended", SOON_S)
        assert await connect(guest, at.WEB, at.HTTP_PORT) == ("connected", pytest.approx(0, abs=1))
        await asyncio.sleep(1.5 * TIMEOUT_S)
        assert impatient.metric(FAILED) == 1
        assert impatient.metric("l2_policy_denied_total") == 0


@pytest.fixture
def patient(world: World, proxy_as: RunAs) -> Iterator[Proxy]:
    with run_proxy(world, proxy_as, {"AERO_L2_TCP_CONNECT_TIMEOUT_MS": "15000"}) as proxy:
        yield proxy


async def test_server_that_answers_late_is_reached(patient: Proxy) -> None:
    """The first SYN is lost on the internet; the host sends another after a second (RFC 6298)."""
    internet = patient.world.internet
    rules = "table inet late { chain input { type filter hook input priority 0; tcp dport 80 drop; }; }"
    async with linux_guest(patient) as guest:
        internet.run("nft", rules)
        connecting = asyncio.create_task(connect(guest, at.WEB, at.HTTP_PORT))
        try:
            await until(lambda: patient.metric(ACTIVE_TCP) == 1, "it connects", SOON_S)
        finally:
            internet.run("nft", "delete table inet late")
        outcome, seconds = await connecting
        assert (outcome, patient.metric(FAILED)) == ("connected", 0)
        assert seconds > 0.9


@pytest.mark.slow
async def test_connects_under_way_leave_nothing_behind_a_tunnel(impatient: Proxy) -> None:
    async with raw_guest(impatient) as guest:
        await guest.echo(b"the NAT is up")
    await until(lambda: not impatient.with_role("nat"), "it has ended")
    before = procfs.usage(impatient.processes())
    async with raw_guest(impatient) as guest:
        await guest.echo(b"the NAT is up")
        for sport in range(30000, 30080):
            await guest.send(IP(src=at.GUEST, dst=NOWHERE) / TCP(sport=sport, dport=80, flags="S"))
        await until(lambda: impatient.metric(ACTIVE_TCP) == 80, "all of them are under way", SOON_S)
    await until(lambda: impatient.metric(ACTIVE_TCP) == 0, "none is", SOON_S)
    await until(lambda: procfs.usage(impatient.processes()) == before, f"as before: {before}", 15)
    await asyncio.sleep(1.5 * TIMEOUT_S)
    assert impatient.metric(FAILED) == 0
    assert "Traceback" not in impatient.log


@pytest.mark.slow
async def test_gauges_are_the_flows_of_all_tunnels(own_proxy: Proxy) -> None:
    def active() -> tuple[float, float]:
        return own_proxy.metric(ACTIVE_TCP), own_proxy.metric(ACTIVE_UDP)

    assert active() == (0, 0)
    async with linux_guest(own_proxy) as first, linux_guest(own_proxy) as second:
        await until(lambda: active() == (0, 2), "one datagram of each", SOON_S)
        holding = [asyncio.create_task(first.run("python3", "-c", HOLD, *OPEN, "4", "3"))]
        await until(lambda: active() == (4, 5), "four and three more", SOON_S)
        holding.append(asyncio.create_task(second.run("python3", "-c", HOLD, *OPEN, "2", "1")))
        await until(lambda: active() == (6, 6), "two and one more", SOON_S)
        killed = own_proxy.one("netd")
        own_proxy.kill(killed)
        await asyncio.gather(*holding)
        await until(lambda: active()[0] == 0, "closed connections, TIME_WAIT or not", 2 * SOON_S)
        assert active()[1] == 6
    await until(lambda: active() == (0, 0), "no tunnels, no flows", SOON_S)


@pytest.mark.slow
async def test_flows_beyond_the_rate_are_dropped_and_counted(world: World, proxy_as: RunAs) -> None:
    settings = {"AERO_L2_MAX_NEW_FLOWS_PER_SECOND": "1", "AERO_L2_TCP_CONNECT_TIMEOUT_MS": "60000"}
    with run_proxy(world, proxy_as, settings) as proxy:
        async with linux_guest(proxy) as guest:
            holding = asyncio.create_task(guest.run("python3", "-c", HOLD, *OPEN, "4", "0"))
            await until(lambda: proxy.metric("l2_frames_dropped_total") > 0, "some wait", SOON_S)
            await holding
        assert proxy.metric(FAILED) == proxy.metric("l2_policy_denied_total") == 0
