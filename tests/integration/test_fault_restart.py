"""Killed and started again at once on the same port, as a supervisor of services does it."""

import asyncio
import time

import pytest
from support import procfs
from support.proxy import Proxy, Role, RunAs, run_proxy
from support.rawguest import raw_guest
from support.wait import until
from support.world import World

pytestmark = pytest.mark.slow

AGAIN_S = 10.0


@pytest.mark.parametrize("victims", [("server",), ("launch",), ("launch", "netd", "server")], ids="-".join)
async def test_killed_and_started_again_at_once(
    own_proxy: Proxy, world: World, proxy_as: RunAs, victims: tuple[Role, ...]
) -> None:
    tunnels = [own_proxy.tunnel() for _ in range(5)]
    for tunnel in tunnels:
        await tunnel.__aenter__()
    pids, namespaces = own_proxy.processes(), own_proxy.namespaces()
    started = time.monotonic()
    own_proxy.kill(*(pid for role in victims for pid in own_proxy.with_role(role)))
    await asyncio.to_thread(own_proxy.wait)
    await until(lambda: _port_is_free(own_proxy), "its port is free", AGAIN_S)
    with run_proxy(world, proxy_as, options=("--bind", f"127.0.0.1:{own_proxy.port}")) as second:
        assert second.port == own_proxy.port
        async with raw_guest(second) as guest:
            await guest.echo(b"works again")
            took = time.monotonic() - started
            print(f"{'-'.join(victims)}: a guest's echo {took:.1f} s after the kill")
            assert took < 5 * AGAIN_S
            await until(lambda: not any(map(procfs.is_alive, pids)), "every old process ended", AGAIN_S)
            left = namespaces & procfs.network_namespaces(pids)
            assert not left
            assert len(second.with_role("nat")) == 1
    for tunnel in tunnels:
        assert (await tunnel.closed())[0] in (1001, 1006, None)
        await tunnel.__aexit__(None, None, None)


def _port_is_free(proxy: Proxy) -> bool:
    return not proxy.world.host.run("ss", "-Htln", f"sport = :{proxy.port}")
