"""A NAT process that no longer works is noticed, whatever it does instead, and ends its own tunnel only."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw
from support import addresses as at
from support import procfs
from support.proxy import Proxy
from support.rawguest import RawGuest, raw_guest
from support.tunnel import Tunnel
from support.wait import until
from support.wedge import WEDGES

pytestmark = pytest.mark.slow

NOTICED_S = 10.0
TUNNELS, LOAD = 64, 40
SAID = {"stopped": "it is stopped", "spinning": "it spins", "asleep": "it sleeps and does not answer"}


@pytest.mark.parametrize("how", WEDGES)
async def test_useless_nat_process_ends_its_tunnel_and_no_other(proxy: Proxy, how: str) -> None:
    async with raw_guest(proxy) as bystander:
        await bystander.echo(b"works")
        async with raw_guest(proxy) as guest:
            await guest.echo(b"works")
            nat = proxy.with_role("nat")[-1]
            lines = len(proxy.log.splitlines())
            started = time.monotonic()
            WEDGES[how](nat)
            assert await guest.tunnel.closed(5 * NOTICED_S) == (1011, "tunnel failed")
            took = time.monotonic() - started
        print(f"{how}: noticed after {took:.1f} s")
        assert took < NOTICED_S
        await until(lambda: not procfs.is_alive(nat), "the process is killed")

        def said() -> str:
            return "\n".join(proxy.log.splitlines()[lines:])

        await until(
            lambda: (
                '"NAT process killed", "component": "netd", "session": ' in said()
                and f'"pid": {nat}' in said()
            ),
            "it is in the log",
        )
        assert said().count(SAID[how]) == 2  # netd's line and the tunnel's
        await bystander.echo(b"still works")
        assert bystander.tunnel.is_open
        async with raw_guest(proxy) as late:
            await late.echo(b"and so does the next one")


@pytest.mark.parametrize("proxy_as", ["user"], indirect=True)
@pytest.mark.parametrize("how", WEDGES)
async def test_nat_process_of_an_earlier_netd_is_looked_after_too(own_proxy: Proxy, how: str) -> None:
    async with raw_guest(own_proxy) as bystander, raw_guest(own_proxy) as guest:
        await guest.echo(b"works")
        await bystander.echo(b"works")
        nat, netd = own_proxy.with_role("nat")[-1], own_proxy.one("netd")
        own_proxy.kill(netd)
        await until(lambda: own_proxy.with_role("netd") not in ([], [netd]), "a new netd")
        async with raw_guest(own_proxy):
            pass  # which it makes only after what it adopts
        WEDGES[how](nat)
        assert await guest.tunnel.closed(5 * NOTICED_S) == (1011, "tunnel failed")
        await until(lambda: SAID[how] in own_proxy.log, "the reason is in the log")
        await until(lambda: not procfs.is_alive(nat), "the process is killed")
        await bystander.echo(b"still works")


async def _ping_for(tunnel: Tunnel, seconds: float) -> None:
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        await tunnel.ping(str(time.monotonic()).encode(), timeout_s=60)
        await asyncio.sleep(1)


@contextmanager
def _busy_machine() -> Iterator[None]:
    """Both cores busy, and many waiting for them."""
    with ExitStack() as stack:
        for _ in range(LOAD):
            program = [sys.executable, "-c", "while True: pass"]
            stack.callback(stack.enter_context(subprocess.Popen(program)).kill)
        yield


@pytest.mark.parametrize("proxy_as", ["user"], indirect=True)
@pytest.mark.alone
async def test_busy_machine_is_no_alarm(own_proxy: Proxy) -> None:
    """Every NAT process is late with everything, and some move as much as they get processor time for."""
    async with AsyncExitStack() as stack:
        guests = [await stack.enter_async_context(raw_guest(own_proxy)) for _ in range(TUNNELS)]
        for guest in guests:
            await guest.echo(b"works")
        floods = [asyncio.create_task(_flood(guest)) for guest in guests[:4]]
        with _busy_machine():
            await asyncio.gather(*(_ping_for(guest.tunnel, 3 * NOTICED_S) for guest in guests[4:]))
        for flood in floods:
            flood.cancel()
        await asyncio.wait(floods)
        assert all(guest.tunnel.is_open for guest in guests)
        assert "NAT process" not in own_proxy.log


async def _flood(guest: RawGuest) -> None:
    """Datagrams to the internet, as fast as the tunnel takes them."""
    packet = IP(src=at.GUEST, dst=at.WEB) / UDP(sport=4000, dport=at.DISCARD_PORT) / Raw(bytes(1000))
    frame = bytes(guest.frame(packet))
    while True:
        for _ in range(50):
            await guest.tunnel.send(frame)
        await asyncio.sleep(0)


async def test_stopped_nat_process_does_not_outlive_its_tunnel(proxy: Proxy) -> None:
    async with raw_guest(proxy) as guest:
        await guest.echo(b"works")
        nat = proxy.with_role("nat")[-1]
        os.kill(nat, signal.SIGSTOP)
    await until(lambda: not procfs.is_alive(nat), "the process is killed", 50)


@pytest.mark.parametrize("proxy_as", ["user"], indirect=True)
async def test_being_stopped_itself_is_no_alarm(own_proxy: Proxy) -> None:
    """A suspended virtual machine, a frozen container: everything stops, and goes on in any order."""
    async with raw_guest(own_proxy) as guest:
        await guest.echo(b"works")
        processes = own_proxy.processes()
        for _ in range(2):
            for pid in processes:
                os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(NOTICED_S)
            for pid in (own_proxy.one("netd"), *processes):
                os.kill(pid, signal.SIGCONT)
            await guest.echo(b"goes on")
        await _ping_for(guest.tunnel, NOTICED_S)
        await guest.echo(b"and goes on")
        assert "NAT process" not in own_proxy.log
