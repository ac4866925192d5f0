"""A netd that is slow, and clients that do not wait for it; what dies or is missing: test_failures.py."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support import procfs
from support.proxy import Proxy
from support.rawguest import RawGuest, raw_guest
from support.tunnel import RefusedError, Tunnel
from support.wait import until

from netns.client import SILENT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("proxy_as", ["user"], indirect=True),  # who started it makes no difference here
]

SLOW_S = 4.0
GIVEN_UP_S = 15.0


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that gets no processor time while the block runs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def _goes_on(guest: RawGuest, seconds: float) -> None:
    """Datagrams and names all the time."""
    end = time.monotonic() + seconds
    while True:
        await guest.echo(b"goes on")
        assert (await guest.resolve("web.example.test")).rcode == 0
        if time.monotonic() >= end:
            return
        await asyncio.sleep(0.2)


async def _open(tunnel: Tunnel) -> None:
    async with tunnel:
        await tunnel.ping(b"open")


async def _in_use(proxy: Proxy, guest: RawGuest) -> procfs.Usage:
    """What the proxy's processes hold after they have done everything once."""
    await _goes_on(guest, 0)
    await _open(proxy.tunnel())
    await until(lambda: len(proxy.with_role("nat")) == 1, "the first try is undone")
    return _held(proxy)


def _held(proxy: Proxy) -> procfs.Usage:
    """All but the NAT processes, which hold sockets for what their guests have done."""
    return procfs.usage([pid for pid in proxy.processes() if proxy.role(pid) != "nat"])


async def test_slow_netd_delays_new_tunnels_and_nothing_else(own_proxy: Proxy) -> None:
    async with raw_guest(own_proxy) as bystander:
        await bystander.echo(b"works")
        netd = own_proxy.one("netd")
        with stopped(netd):
            opening = asyncio.create_task(_open(own_proxy.tunnel()))
            await _goes_on(bystander, SLOW_S)
            assert not opening.done()
            assert own_proxy.get("/healthz")[0] == 200
            assert own_proxy.get("/readyz")[0] == 200
        await asyncio.wait_for(opening, 50)
        assert own_proxy.one("netd") == netd
        await until(lambda: len(own_proxy.with_role("nat")) == 1, "the other is undone")


async def test_netd_that_does_not_answer_is_noticed_and_not_waited_for_for_ever(own_proxy: Proxy) -> None:
    """Whoever asks for a tunnel: the first one here does once it has been noticed."""
    async with raw_guest(own_proxy) as bystander:
        before = await _in_use(own_proxy, bystander)
        with stopped(own_proxy.one("netd")):
            going_on = asyncio.create_task(_goes_on(bystander, GIVEN_UP_S))
            await until(lambda: own_proxy.get("/readyz") == (503, SILENT), "it is noticed", 5 * GIVEN_UP_S)
            opening = asyncio.create_task(_open(own_proxy.tunnel()))
            await going_on
            with pytest.raises(RefusedError, match=SILENT) as refused:
                await asyncio.wait_for(opening, 5 * GIVEN_UP_S)
            assert refused.value.status == 503
            assert own_proxy.log.count("tunnels cannot be made") == 1
        await until(lambda: own_proxy.get("/readyz")[0] == 200, "ready again", 50)
        assert own_proxy.log.count("tunnels can be made") == 2  # the first time at its start
        async with raw_guest(own_proxy) as late:
            await late.echo(b"works")
        await bystander.echo(b"all along")
        await until(lambda: len(own_proxy.with_role("nat")) == 1, "nothing but the bystander's is left", 50)
        await until(lambda: _held(own_proxy) == before, f"as before: {before}", 50)


async def test_client_that_leaves_during_set_up_leaves_nothing(own_proxy: Proxy) -> None:
    async with raw_guest(own_proxy) as bystander:
        before = await _in_use(own_proxy, bystander)
        held = own_proxy.namespaces()
        with stopped(own_proxy.one("netd")):
            openings = [asyncio.create_task(_open(own_proxy.tunnel())) for _ in range(20)]
            await until(lambda: _upgrading(own_proxy) == 21, "all are being set up")
            for opening in openings:
                opening.cancel()
            await asyncio.wait(openings)
            await until(lambda: _upgrading(own_proxy) == 1, "the server knows that they left")
            await _goes_on(bystander, 1)
        async with raw_guest(own_proxy) as late:
            await late.echo(b"works")
        await until(lambda: len(own_proxy.with_role("nat")) == 1, "nothing but the bystander's is left", 50)
        await until(lambda: _held(own_proxy) == before, f"as before: {before}", 50)
        assert own_proxy.namespaces() == held
        assert own_proxy.metric("l2_sessions_active") == 1


def _upgrading(proxy: Proxy) -> int:
    """Established connections to the proxy, whose other end is still there."""
    shown = proxy.world.host.run("ss", "-Htn", "state", "established", f"sport = :{proxy.port}")
    return len(shown.splitlines())
