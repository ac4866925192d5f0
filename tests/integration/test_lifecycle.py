"""How a proxy ends, and that nothing of a tunnel outlives it."""

import asyncio
import os
import signal
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
from support import addresses as at
from support import procfs
from support.proxy import Proxy, Role
from support.rawguest import RawGuest, raw_guest
from support.wait import until

_GRACE_S = 3.0
_GONE_S = 10.0  # five times the two seconds that are promised
_CYCLES = 200


@asynccontextmanager
async def _working_guests(proxy: Proxy, count: int) -> AsyncIterator[list[RawGuest]]:
    async with AsyncExitStack() as stack:
        guests = [await stack.enter_async_context(raw_guest(proxy)) for _ in range(count)]
        await asyncio.gather(*(guest.echo(b"works") for guest in guests))
        yield guests


@dataclass(frozen=True)
class _Before:
    """Who on the machine held which of the proxy's namespaces before something ended, by process id."""

    holders: dict[int, set[str]]

    def left(self) -> set[str]:
        """Namespaces that one of them still holds; anybody else's is a new one, since the kernel gives a
        freed inode to the next one made."""
        return {name for pid, held in self.holders.items() for name in held & procfs.namespaces_of(pid)}


def _before(proxy: Proxy) -> _Before:
    namespaces = proxy.namespaces()
    return _Before({pid: held for pid in procfs.pids() if (held := namespaces & procfs.namespaces_of(pid))})


async def _assert_gone(proxy: Proxy, before: _Before) -> None:
    """Neither a process of the proxy (the NAT's included) is left nor a namespace, and with it its TAPs."""
    await until(lambda: not proxy.processes(), "every process has ended", _GONE_S)
    await until(lambda: not before.left(), "every namespace is gone", _GONE_S)


async def test_sigterm_closes_tunnels_with_1001_and_ends_with_status_0(own_proxy: Proxy) -> None:
    async with _working_guests(own_proxy, 3) as guests:
        before = _before(own_proxy)
        started = time.monotonic()
        own_proxy.terminate()
        closes = await asyncio.gather(*(guest.tunnel.closed() for guest in guests))
        status = await asyncio.to_thread(own_proxy.wait)
        took = time.monotonic() - started
    assert closes == [(1001, "shutting down")] * 3
    assert status == 0, own_proxy.log
    assert took <= _GRACE_S
    await _assert_gone(own_proxy, before)


@pytest.mark.slow
async def test_sighup_while_it_ends_changes_nothing(own_proxy: Proxy) -> None:
    async with own_proxy.tunnel():
        own_proxy.terminate()
        until = time.monotonic() + 10
        while own_proxy.is_running() and time.monotonic() < until:
            os.kill(own_proxy.pid, signal.SIGHUP)
            await asyncio.sleep(0.002)
    assert own_proxy.wait() == 0
    assert "server ended" not in own_proxy.log
    assert "Traceback" not in own_proxy.log


async def test_sigterm_without_tunnels_ends_with_status_0(own_proxy: Proxy) -> None:
    before = _before(own_proxy)
    own_proxy.terminate()
    assert await asyncio.to_thread(own_proxy.wait) == 0, own_proxy.log
    await _assert_gone(own_proxy, before)


VICTIMS: dict[str, tuple[Role, ...]] = {
    "server": ("server",),
    "launch": ("launch",),
    "all-but-nat": ("launch", "netd", "server"),
    "all": ("launch", "netd", "server", "nat"),
}


@pytest.mark.slow
@pytest.mark.parametrize("victims", VICTIMS)
async def test_sigkill_leaves_nothing_behind(own_proxy: Proxy, victims: str) -> None:
    async with _working_guests(own_proxy, 3):
        before = _before(own_proxy)
        assert len(set().union(*before.holders.values())) >= 3
        own_proxy.kill(*(pid for role in VICTIMS[victims] for pid in own_proxy.with_role(role)))
        await _assert_gone(own_proxy, before)


async def test_closed_tunnel_leaves_nothing_behind(proxy: Proxy) -> None:
    before = proxy.namespaces()
    async with raw_guest(proxy) as guest:
        await guest.echo(b"works")
        opened = proxy.namespaces() - before
        assert opened
        nat = proxy.with_role("nat")
    await until(lambda: not opened & proxy.namespaces(), "the namespace is gone", _GONE_S)
    await until(lambda: not any(map(procfs.is_alive, nat)), "the NAT process has ended", _GONE_S)


async def test_tunnel_that_vanishes_leaves_nothing_behind(proxy: Proxy) -> None:
    before = proxy.namespaces()
    async with raw_guest(proxy) as guest:
        await guest.echo(b"works")
        opened = proxy.namespaces() - before
        guest.tunnel.abort()
        await until(lambda: not opened & proxy.namespaces(), "the namespace is gone", _GONE_S)


@pytest.mark.slow
async def test_upgrades_that_are_dropped_do_not_keep_others_out(own_proxy: Proxy) -> None:
    """A client that asks for tunnels and hangs up at once costs no more than what it hangs up on."""
    request = (
        b"GET /l2 HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: aero-l2-tunnel-v1\r\n\r\n"
    )

    def drop_many() -> None:
        for _ in range(1000):
            connection = socket.create_connection((at.LOOPBACK, own_proxy.port), timeout=10)
            connection.sendall(request)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    await asyncio.to_thread(own_proxy.world.host.call, drop_many)
    async with asyncio.timeout(10), raw_guest(own_proxy) as guest:
        await guest.echo(b"after the storm")
    assert own_proxy.get("/readyz")[0] == 200


@pytest.mark.slow
async def test_open_and_close_use_nothing_up(own_proxy: Proxy) -> None:
    async def cycle() -> None:
        async with own_proxy.tunnel() as tunnel:
            await tunnel.ping(b"open")

    for _ in range(10):
        await cycle()
    await until(
        lambda: len(own_proxy.namespaces()) == 1, "warmed up and idle: only netd's own is left", _GONE_S
    )
    namespaces, before = own_proxy.namespaces(), procfs.usage(own_proxy.processes())
    for _ in range(_CYCLES):
        await cycle()
    await until(lambda: procfs.usage(own_proxy.processes()) == before, f"as before: {before}", _GONE_S)
    assert own_proxy.namespaces() == namespaces
