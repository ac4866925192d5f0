"""Ports of the host: what a guest can take of them, and what works while there are none."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address

import pytest
from support import addresses as at
from support import floods
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import raw_guest
from support.wait import until
from support.world import World

RANGE = "net.ipv4.ip_local_port_range"
NOERROR = 0
UDP_FLOWS = 32
MOST_UDP_PORTS = 52  # 16 of the guest's own, and the 36 that others share
FIRST = 50_000
SYN_ACK = 0x12
BURST, PER_SECOND = 500, 50
AT_ONCE = 50  # less than the queue to the NAT process holds


@contextmanager
def no_ports(world: World) -> Iterator[None]:
    """The kernel has no port to give to a UDP socket of the host."""
    before = world.host.run("sysctl", "-n", RANGE).strip()
    with ExitStack() as stack:
        stack.callback(world.host.run, "sysctl", "-qw", f"{RANGE}={before}")
        world.host.run("sysctl", "-qw", f"{RANGE}=60000 60049")
        for port in range(60000, 60050):
            taken = world.host.open_socket(kind=socket.SOCK_DGRAM)
            stack.callback(taken.close)
            taken.bind(("", port))
        yield


@pytest.fixture
def few_flows(world: World, proxy_as: RunAs) -> Iterator[Proxy]:
    """A proxy whose UDP flows are few and end soon."""
    settings = {
        "AERO_L2_MAX_UDP_FLOWS_PER_TUNNEL": str(UDP_FLOWS),
        "AERO_L2_UDP_FLOW_IDLE_TIMEOUT_MS": "1000",
    }
    with run_proxy(world, proxy_as, settings) as proxy:
        yield proxy


async def test_names_are_looked_up_while_the_host_has_no_port_and_new_tunnels_are_refused(
    own_proxy: Proxy,
) -> None:
    async with raw_guest(own_proxy) as guest:
        with no_ports(own_proxy.world):
            for number in range(5):
                assert (await guest.resolve(f"n{number}.many.allowed.test")).rcode == NOERROR
            reason = f"the host has no UDP ports left for another tunnel ({RANGE})"
            await until(lambda: own_proxy.get("/readyz") == (503, reason), "it says so", 15)
            assert own_proxy.metric('aero_l2_capacity_tunnels{limit="ports"}') == 1
        await until(lambda: own_proxy.get("/readyz")[0] == 200, "ready again", 15)


async def test_guest_that_goes_through_its_ports_holds_few_of_the_host_and_is_answered_on_each(
    few_flows: Proxy,
) -> None:
    async with raw_guest(few_flows) as guest:
        await guest.echo(b"the NAT is up")
        nat = few_flows.one("nat")
        idle = len(os.listdir(f"/proc/{nat}/fd")) - 1
        for _ in range(2 * MOST_UDP_PORTS):
            await guest.echo(b"from a new port, as soon as there may be another flow")
        assert len(os.listdir(f"/proc/{nat}/fd")) - idle <= MOST_UDP_PORTS


async def test_connects_to_one_server_have_a_rate_and_those_to_another_go_on(own_proxy: Proxy) -> None:
    web = IPv4Address(at.WEB)
    async with raw_guest(own_proxy) as guest:
        assert await guest.try_tcp(at.CDN, at.HTTP_PORT) == "answered"
        answered: set[bytes] = set()

        def settled(sent: int) -> bool:
            """Every SYN was answered or dropped."""
            while not guest.tunnel.frames.empty():
                frame = guest.tunnel.frames.get_nowait()
                if frame[23] == socket.IPPROTO_TCP and frame[26:30] == web.packed and frame[47] == SYN_ACK:
                    answered.add(frame[36:38])
            return len(answered) + own_proxy.metric("l2_frames_dropped_total") >= sent

        began = time.monotonic()
        for sent in range(1, 2 * BURST + 1):
            await guest.tunnel.send(floods.segment(web.packed, FIRST + sent, at.HTTP_PORT))
            if sent % AT_ONCE == 0 and sent <= BURST:
                await until(lambda sent=sent: settled(sent), "answered", 15)
        await until(lambda: settled(2 * BURST), "answered or counted", 15)
        took = time.monotonic() - began
        assert BURST <= len(answered) <= BURST + PER_SECOND * took + 1
        assert await guest.try_tcp(at.CDN, at.HTTP_PORT) == "answered"
        assert await guest.try_tcp(at.WEB, at.ECHO_PORT) == "answered"
        assert await guest.try_tcp(at.WEB, at.HTTP_PORT) == "answered", "sent again, it gets there"
