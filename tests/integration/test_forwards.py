"""Forwards, names of the operator's own, and host addresses that come and go, on a running proxy."""

import time
from collections.abc import Iterator

import pytest
from support import addresses as at
from support.nsguest import ns_guest
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import RawGuest, raw_guest
from support.wait import retry
from support.world import World


@pytest.fixture(scope="module")
def forwarding(world: World, proxy_as: RunAs) -> Iterator[Proxy]:
    """A proxy with forwards to the host's loopback, to another machine, and by name; and two static names."""
    settings = {
        "AERO_L2_TCP_FORWARD": (
            f"10.0.2.2:8080={at.LOOPBACK}:{at.LOCAL_HTTP_PORT},"
            f"192.0.2.80:80={at.OTHER}:{at.SERVICE_PORT},"
            f"192.0.2.81:80=localhost:{at.LOCAL_HTTP_PORT}"
        ),
        "AERO_L2_UDP_FORWARD": f"10.0.2.2:9000={at.LOOPBACK}:{at.SERVICE_PORT}",
        "AERO_L2_DNS_A": "files.lan=10.0.2.2,Intranet.Lan.=192.0.2.80,intranet.lan=192.0.2.81",
    }
    with run_proxy(world, proxy_as, settings) as proxy:
        yield proxy


async def test_tcp_forward_reaches_the_hosts_loopback(forwarding: Proxy) -> None:
    async with forwarding.tunnel() as tunnel, ns_guest(tunnel) as guest:
        url = "http://files.lan:8080/hello"
        assert await guest.run("busybox", "wget", "-q", "-O", "-", url) == at.HELLO


async def test_udp_forward_reaches_the_hosts_loopback(forwarding: Proxy) -> None:
    async with raw_guest(forwarding) as guest:
        assert await guest.udp("10.0.2.2", 9000, b"to the host") == b"to the host"


async def test_forward_to_another_machine_passes_the_address_policy(forwarding: Proxy) -> None:
    async with raw_guest(forwarding) as guest:
        assert await guest.try_tcp("192.0.2.80", 80) == "answered"


async def test_forward_by_name_follows_the_hosts_resolver(forwarding: Proxy) -> None:
    async with forwarding.tunnel() as tunnel, ns_guest(tunnel) as guest:
        url = "http://192.0.2.81/hello"
        assert await guest.run("busybox", "wget", "-q", "-O", "-", url) == at.HELLO


async def test_forwards_open_nothing_else(forwarding: Proxy) -> None:
    async with raw_guest(forwarding) as guest:
        for address, port in (
            (at.LOOPBACK, at.LOCAL_HTTP_PORT),
            (at.LOOPBACK, at.SERVICE_PORT),
            (at.NAT, at.LOCAL_HTTP_PORT),
            (at.NAT, at.SERVICE_PORT),
            (at.OTHER, at.SERVICE_PORT),
            ("192.0.2.80", at.SERVICE_PORT),
            ("10.0.2.2", at.SERVICE_PORT),
        ):
            assert await guest.try_tcp(address, port) == "reset", (address, port)
        assert await guest.try_udp(at.NAT, at.SERVICE_PORT) == "prohibited"


async def test_static_names_are_answered_as_given_ahead_of_every_filter(forwarding: Proxy) -> None:
    async with raw_guest(forwarding) as guest:
        files = await guest.resolve("FILES.lan")
        intranet = await guest.resolve("intranet.lan")
    assert [record.rdata for record in files.an] == ["10.0.2.2"]
    assert sorted(record.rdata for record in intranet.an) == ["192.0.2.80", "192.0.2.81"]


async def test_unresolvable_forward_refuses_the_tunnel_and_names_the_setting(
    world: World, proxy_as: RunAs
) -> None:
    settings = {"AERO_L2_TCP_FORWARD": "192.0.2.80:80=nowhere.example.test:80"}
    with run_proxy(world, proxy_as, settings, ready=False) as proxy:

        async def reason() -> str | None:
            status, body = proxy.get("/readyz")
            return body if status == 503 and "nowhere" in body else None

        body = await retry(reason, "readyz names the forward", 15)
    assert "AERO_L2_TCP_FORWARD" in body


async def test_addresses_the_host_gains_and_loses_are_followed_by_open_tunnels(
    proxy: Proxy, world: World
) -> None:
    async with raw_guest(proxy) as guest:
        assert await guest.udp(at.CDN, at.ECHO_PORT, b"as ever") == b"as ever"
        world.host.run("ip", "address", "add", f"{at.CDN}/32", "dev", "lo")
        try:
            await _until_met(guest, "prohibited")
            assert await guest.try_tcp(at.CDN, at.ECHO_PORT) == "reset"
        finally:
            world.host.run("ip", "address", "del", f"{at.CDN}/32", "dev", "lo")
        await _until_met(guest, "answered")


async def test_prefix_routed_to_the_host_is_the_host(proxy: Proxy, world: World) -> None:
    """Linux answers for a whole prefix once a local route names it, without an address on any interface."""
    async with raw_guest(proxy) as guest:
        world.host.run("ip", "route", "add", "local", "151.101.1.0/24", "dev", "lo")
        try:
            await _until_met(guest, "prohibited")
            assert await guest.try_tcp("151.101.1.250", at.SERVICE_PORT) == "reset"
        finally:
            world.host.run("ip", "route", "del", "local", "151.101.1.0/24", "dev", "lo")
        await _until_met(guest, "answered")


async def _until_met(guest: RawGuest, verdict: str) -> None:
    """Send datagrams to the address until one meets ``verdict``."""
    met: list[str] = []
    end = time.monotonic() + 10
    while not met or met[-1] != verdict:
        assert time.monotonic() < end, f"not {verdict} in 10 s: {met}"
        met.append(await guest.try_udp(at.CDN, at.ECHO_PORT))
