"""How a proxy is told to end, and what open tunnels have of it."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import procfs
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import raw_guest
from support.tunnel import RefusedError
from support.wait import until
from support.world import World

from netns.stopping import ECHO_S

_LONG_MS = "600000"
_SOON_S = 10.0
"""Far from the drain, far above what an end takes."""


@pytest.fixture
def draining_proxy_of_root(world: World) -> Iterator[Proxy]:
    """The same, where who starts it makes no difference."""
    with run_proxy(world, "root", {"AERO_L2_DRAIN_MS": _LONG_MS}) as proxy:
        yield proxy


@pytest.fixture
def draining_proxy(world: World, proxy_as: RunAs) -> Iterator[Proxy]:
    """A proxy that drains for ten minutes, if it is let."""
    with run_proxy(world, proxy_as, {"AERO_L2_DRAIN_MS": _LONG_MS}) as proxy:
        yield proxy


async def _draining(proxy: Proxy) -> None:
    await until(lambda: proxy.get("/readyz") == (503, "shutting down"), "it is not ready any more", _SOON_S)


async def _refused(proxy: Proxy) -> tuple[int, str]:
    with pytest.raises(RefusedError) as refused:
        async with proxy.tunnel():
            pass
    return refused.value.status, refused.value.body


async def _ended(proxy: Proxy) -> tuple[int, float]:
    """Exit status, and how long it took from now."""
    began = time.monotonic()
    status = await asyncio.to_thread(proxy.wait)
    return status, time.monotonic() - began


async def test_open_tunnels_live_on_while_new_ones_are_refused(draining_proxy: Proxy) -> None:
    proxy = draining_proxy
    async with raw_guest(proxy) as last:
        async with raw_guest(proxy) as first:
            proxy.terminate()
            await _draining(proxy)
            assert await _refused(proxy) == (503, "shutting down")
            assert proxy.get("/healthz")[0] == 200
            assert proxy.metric("l2_sessions_active") == 2
            await asyncio.gather(first.echo(b"still here"), last.echo(b"still here"))
        await last.echo(b"and alone")
        assert proxy.is_running()
    status, took = await _ended(proxy)  # with nobody left it waits for nobody
    assert status == 0, proxy.log
    assert took < _SOON_S


async def test_tunnels_that_outstay_the_drain_get_1001(world: World) -> None:
    drain_s = 2.0
    with run_proxy(world, "root", {"AERO_L2_DRAIN_MS": str(round(drain_s * 1000))}) as proxy:
        async with raw_guest(proxy) as guest:
            began = time.monotonic()
            proxy.terminate()
            assert await guest.tunnel.closed() == (1001, "shutting down")
            lived_s = time.monotonic() - began
            assert await asyncio.to_thread(proxy.wait) == 0, proxy.log
    assert drain_s <= lived_s < drain_s + _SOON_S
    last = json.loads(proxy.log.splitlines()[-1])
    assert (last["event"], last["closed"]) == ("ended", 1)
    assert drain_s <= last["seconds"] < drain_s + _SOON_S


@pytest.mark.slow
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_at_once(draining_proxy_of_root: Proxy, second: signal.Signals) -> None:
    async with raw_guest(draining_proxy_of_root) as guest:
        draining_proxy_of_root.terminate(signal.SIGINT)
        await _draining(draining_proxy_of_root)
        came = time.monotonic()
        await guest.echo(b"works")
        await until(lambda: time.monotonic() - came > ECHO_S, "another one would be no echo")
        draining_proxy_of_root.terminate(second)
        ended = asyncio.create_task(_ended(draining_proxy_of_root))
        assert await guest.tunnel.closed() == (1001, "shutting down")
        status, took = await ended
    assert status == 0, draining_proxy_of_root.log
    assert took < _SOON_S
    assert not draining_proxy_of_root.processes()
    assert '"event": "told again to end: nobody is waited for"' in draining_proxy_of_root.log


async def test_one_signal_to_every_process_is_one_signal(draining_proxy: Proxy) -> None:
    """As systemd does it by default (KillMode=control-group), and `pkill` by name."""
    proxy = draining_proxy
    async with raw_guest(proxy) as guest:
        await guest.echo(b"works")
        for pid in proxy.processes():
            os.kill(pid, signal.SIGTERM)
        await _draining(proxy)
        await guest.echo(b"still here")
        assert proxy.is_running()
    status, took = await _ended(proxy)
    assert status == 0, proxy.log
    assert took < _SOON_S
    assert "netd ended" not in proxy.log


@pytest.mark.slow
async def test_a_server_that_hangs_is_killed_after_the_second_signal(
    draining_proxy_of_root: Proxy,
) -> None:
    own_proxy = draining_proxy_of_root
    async with raw_guest(own_proxy):
        pids, namespaces = procfs.pids(), own_proxy.namespaces()
        os.kill(own_proxy.one("server"), signal.SIGSTOP)
        own_proxy.terminate()
        own_proxy.terminate(signal.SIGINT)
        assert await asyncio.to_thread(own_proxy.wait, 30) == 128 + signal.SIGKILL
    await until(lambda: not own_proxy.processes(), "every process has ended", _SOON_S)
    await until(lambda: not namespaces & procfs.network_namespaces(pids), "no namespace is left", _SOON_S)
    assert '"event": "server killed"' in own_proxy.log


@pytest.mark.slow
async def test_without_its_supervisor_the_server_does_not_drain(draining_proxy_of_root: Proxy) -> None:
    """Whoever starts the service again needs the port."""
    async with raw_guest(draining_proxy_of_root) as guest:
        await guest.echo(b"works")
        draining_proxy_of_root.kill(draining_proxy_of_root.pid)
        await until(lambda: not draining_proxy_of_root.processes(), "every process has ended", _SOON_S)


@pytest.mark.slow
async def test_a_reload_changes_how_long_the_end_takes(world: World, tmp_path: Path) -> None:
    file = tmp_path / "aero-l2.toml"
    file.write_text(f"drain_ms = {_LONG_MS}\n")
    file.chmod(0o644)
    file.parent.chmod(0o755)
    with run_proxy(world, "root", options=["--config", str(file)]) as proxy:
        async with raw_guest(proxy) as guest:
            file.write_text("drain_ms = 0\n")
            assert "AERO_L2_DRAIN_MS" in proxy.reload()
            proxy.terminate()
            status, took = await _ended(proxy)
            assert await guest.tunnel.closed() == (1001, "shutting down")
    assert status == 0, proxy.log
    assert took < _SOON_S
