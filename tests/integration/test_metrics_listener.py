"""AERO_L2_METRICS_ADDR and AERO_L2_METRICS, as an operator sets them."""

import signal

import pytest
from support import addresses as at
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import raw_guest
from support.systemd import listening
from support.wait import until
from support.world import World

ADDRESS = "AERO_L2_METRICS_ADDR"


def port_of(proxy: Proxy) -> int:
    return int(proxy.event("metrics are served")["port"])


async def test_metrics_have_an_address_of_their_own(world: World, proxy_as: RunAs) -> None:
    with run_proxy(world, proxy_as, {ADDRESS: "127.0.0.1:0", "AERO_L2_DRAIN_MS": "600000"}) as proxy:
        port = port_of(proxy)
        async with raw_guest(proxy) as guest:
            await guest.echo(b"a frame")
            assert "\nl2_sessions_active 1.0\n" in proxy.get("/metrics", port)[1]
            for path in ("/metrics", "/version", "/readyz"):
                assert (proxy.get(path)[0], proxy.get(path, port)[0]) == (404, 200)
            assert proxy.get("/healthz") == proxy.get("/healthz", port) == (200, "ok")
            assert proxy.get("/l2", port)[0] == 404
            proxy.terminate()
            await until(lambda: proxy.get("/readyz", port) == (503, "shutting down"), "it drains", 10)
            assert "\nl2_sessions_active 1.0\n" in proxy.get("/metrics", port)[1]
            proxy.terminate(signal.SIGINT)
        assert proxy.wait() == 0


def test_address_that_cannot_be_had_refuses_to_start_and_is_named(world: World, proxy_as: RunAs) -> None:
    with run_proxy(world, proxy_as) as first:
        env = {ADDRESS: f"127.0.0.1:{first.port}"}
        said = rf"ended with 2:\n(.*\n)*aero-l2: {ADDRESS}: cannot listen on 127.0.0.1:{first.port}: another"
        with pytest.raises(AssertionError, match=said), run_proxy(world, proxy_as, env):
            pytest.fail("it started")


def test_it_goes_with_sockets_that_were_handed_over(world: World, proxy_as: RunAs) -> None:
    with (
        listening(world.host) as sock,
        run_proxy(world, proxy_as, {ADDRESS: "127.0.0.1:0"}, sockets=[sock]) as proxy,
    ):
        assert proxy.port == sock.getsockname()[1]
        assert proxy.get("/metrics")[0] == 404
        assert proxy.get("/metrics", port_of(proxy))[0] == 200
        assert proxy.get("/healthz")[0] == 200


async def test_switched_off_nothing_is_counted_and_tunnels_are_as_ever(world: World, proxy_as: RunAs) -> None:
    with run_proxy(world, proxy_as, {"AERO_L2_METRICS": "off"}) as proxy:
        async with raw_guest(proxy) as guest:
            await guest.echo(b"a frame")
            assert await guest.ping(at.GATEWAY)
            assert (await guest.resolve("web.example.test")).rcode == 0
            assert proxy.get("/metrics")[0] == 404
            assert proxy.get("/readyz")[0] == 200
        proxy.wait_settled()
        assert "Traceback" not in proxy.log
