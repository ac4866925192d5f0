"""The client library against the real proxy: what it carries, and how it names each way to fail."""

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw
from support import addresses as at
from support.proxy import Proxy, run_proxy
from support.rawguest import BROADCAST, MAC
from support.wait import until, wait_until
from support.world import World

from aero_l2.client import (
    ClientError,
    Credential,
    CredentialRefused,
    Delivery,
    HostRefused,
    LimitReached,
    NotATunnel,
    Options,
    OriginRefused,
    ReconnectPolicy,
    State,
    Status,
    Target,
    Tunnel,
    TunnelClosed,
    Unavailable,
    connect,
    run_reconnecting,
)
from aero_l2.client.address import NO_ORIGIN
from aero_l2.wire.tunnel import ErrorCode

_T = TypeVar("_T")
ROOT = Path(__file__).resolve().parents[2]
KEY = "canary-of-the-client-5e3c.r3t"
OPTIONS = Options(open_timeout_s=30)


def inside(world: World, work: Callable[[], Awaitable[_T]]) -> _T:
    """Run a client on the proxy's host."""

    async def run() -> _T:
        return await asyncio.wait_for(work(), 120)

    return world.host.call(lambda: asyncio.run(run()))


def refused(proxy: Proxy, options: Options = OPTIONS, path: str = "") -> ClientError:
    """How an attempt fails."""

    async def attempt() -> ClientError:
        with pytest.raises(ClientError) as caught:
            async with connect(proxy.url + path, options):
                pass
        return caught.value

    return inside(proxy.world, attempt)


@contextmanager
def held(proxy: Proxy, options: Options = OPTIONS) -> Iterator[None]:
    """A tunnel that is open meanwhile."""
    is_open, done = threading.Event(), threading.Event()

    async def hold() -> None:
        async with connect(proxy.url, options):
            is_open.set()
            await asyncio.to_thread(done.wait)

    holder = threading.Thread(target=lambda: inside(proxy.world, hold))
    holder.start()
    try:
        assert is_open.wait(60)
        yield
    finally:
        done.set()
        holder.join()


async def arp(tunnel: Tunnel) -> str:
    """Ask for the gateway's MAC address."""
    asked = ARP(op="who-has", hwsrc=MAC, psrc=at.GUEST, pdst=at.GATEWAY)
    await tunnel.send_frame(bytes(Ether(src=MAC, dst=BROADCAST) / asked))
    async for frame in tunnel.frames():
        packet = Ether(frame)
        if ARP in packet and packet[ARP].op == 2 and packet[ARP].psrc == at.GATEWAY:
            return str(packet[ARP].hwsrc)
    raise AssertionError


def test_frames_and_pings_go_both_ways(proxy: Proxy) -> None:
    async def use() -> None:
        async with connect(proxy.url, OPTIONS) as tunnel:
            assert await arp(tunnel) == at.GATEWAY_MAC
            assert 0 < await tunnel.ping() < 5
            assert tunnel.stats.frames_sent == 1
            assert tunnel.stats.frames_received >= 1
            assert tunnel.ended is None

    inside(proxy.world, use)
    proxy.wait_settled()


def test_keepalive_measures_an_idle_tunnel(proxy: Proxy) -> None:
    async def use() -> None:
        # A server that says nothing for as long is gone, so this is its deadline on a loaded machine, too.
        async with connect(proxy.url, Options(keepalive_s=1.0, open_timeout_s=30)) as tunnel:
            await until(lambda: tunnel.stats.rtt_s is not None, "the answer to a PING")
            assert tunnel.ended is None

    inside(proxy.world, use)


def test_each_refusal_has_its_type(world: World) -> None:
    settings = {
        "AERO_L2_OPEN": "",
        "AERO_L2_AUTH_MODE": "token",
        "AERO_L2_API_KEY": KEY,
        "AERO_L2_ALLOWED_ORIGINS": "https://app.example",
    }
    with run_proxy(world, "user", settings) as proxy:
        good = Options(credential=Credential(KEY), origin="https://app.example", open_timeout_s=30)
        bare = refused(proxy)
        assert isinstance(bare, CredentialRefused)
        assert (bare.status, bare.body) == (401, "invalid token")
        for origin, body in (
            ("https://other.example", "Origin not allowed: https://other.example"),
            (NO_ORIGIN, "missing Origin header"),
        ):
            other = refused(proxy, Options(credential=Credential(KEY), origin=origin, open_timeout_s=30))
            assert isinstance(other, OriginRefused)
            assert other.body == body
        assert isinstance(refused(proxy, good, "x"), NotATunnel)
        with held(proxy, good):
            assert proxy.metric("l2_sessions_active") == 1


@pytest.mark.slow
def test_hosts_limits_and_attempts_have_their_types(world: World) -> None:
    with run_proxy(world, "user", {"AERO_L2_ALLOWED_HOSTS": "lab.example"}) as proxy:
        assert isinstance(refused(proxy), HostRefused)
    with run_proxy(world, "user", {"AERO_L2_MAX_CONNECTIONS": "1"}) as proxy, held(proxy):
        full = refused(proxy)
        assert isinstance(full, LimitReached)
        assert full.body == "max connections exceeded"
    with run_proxy(world, "user", {"AERO_L2_MAX_UPGRADES_PER_MINUTE_PER_IP": "1"}) as proxy:
        with held(proxy):
            pass
        often = wait_until(lambda: refused(proxy), "too many attempts")
        assert isinstance(often, LimitReached)
        assert often.retry_after_s is not None


@pytest.mark.slow
def test_server_that_shuts_down_is_unavailable_and_says_so_to_open_tunnels(world: World) -> None:
    with run_proxy(world, "user", {"AERO_L2_SHUTDOWN_GRACE_MS": "5000"}) as proxy:

        async def use() -> TunnelClosed:
            async with connect(proxy.url, OPTIONS) as tunnel:
                proxy.terminate()
                return await tunnel.wait_closed()

        ended = inside(world, use)
        assert (ended.close_code, ended.reason, ended.retryable) == (1001, "shutting down", True)
    with run_proxy(world, "user", tun_mode=0o000, ready=False) as proxy:
        broken = refused(proxy)
        assert isinstance(broken, Unavailable)
        assert broken.retry_after_s is not None


@pytest.mark.slow
def test_next_tunnel_opens_when_the_proxy_is_there_again(world: World) -> None:
    told: list[Status] = []
    first, second = threading.Event(), threading.Event()
    here = ("--bind", f"{at.LOOPBACK}:8090")

    async def serve(tunnel: Tunnel) -> None:
        await arp(tunnel)
        if first.is_set():
            second.set()
            return
        first.set()
        await tunnel.receive_frames()
        raise await tunnel.wait_closed()

    def keep_up() -> None:
        policy = ReconnectPolicy(first_s=0.05, longest_s=0.2)
        url = f"ws://{at.LOOPBACK}:8090"
        inside(world, lambda: run_reconnecting(url, serve, OPTIONS, policy, told.append))

    client = threading.Thread(target=keep_up)
    with run_proxy(world, "user", options=here):
        client.start()
        assert first.wait(60)
    wait_until(lambda: len(told) > 4, "attempts at nobody")
    with run_proxy(world, "user", options=here):
        assert second.wait(60)
        client.join()
    errors = [str(status.error) for status in told if status.state is State.WAITING]
    assert errors[0] == "the server closed the tunnel: shutting down (close code 1001)"
    assert f"ws://{at.LOOPBACK}:8090/l2: Connection refused" in errors


@pytest.mark.slow
def test_stalled_program_is_told_of_backpressure(world: World) -> None:
    echo = Ether(src=MAC, dst=at.GATEWAY_MAC) / IP(src=at.GUEST, dst=at.GATEWAY) / ICMP() / Raw(bytes(1400))
    request = bytes(echo)

    async def stall(proxy: Proxy) -> TunnelClosed:
        def is_closed() -> float:
            return proxy.metric("l2_sessions_closed_backpressure_total")

        async with connect(proxy.url, OPTIONS) as tunnel:
            await arp(tunnel)
            while not await asyncio.to_thread(is_closed):
                for _ in range(500):
                    await tunnel.send_frame(request)
            async for _ in tunnel.frames():
                pass
        raise AssertionError

    with run_proxy(world, "user", {"AERO_L2_SEND_STALL_TIMEOUT_MS": "300"}) as proxy:
        with pytest.raises(TunnelClosed) as caught:
            inside(world, lambda: stall(proxy))
        assert caught.value.error_code is ErrorCode.BACKPRESSURE
        assert caught.value.close_code == 1008
        assert str(caught.value) == (
            "the server closed the tunnel: outbound websocket backpressure (close code 1008, ERROR 9)"
        )
        assert caught.value.retryable


@pytest.mark.parametrize("delivery", Delivery)
def test_secret_is_nowhere_to_be_read(
    world: World, delivery: Delivery, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    mode = {Delivery.BEARER: "jwt", Delivery.COOKIE: "session"}.get(delivery, "token")
    secrets = dict.fromkeys(("AERO_L2_API_KEY", "AERO_L2_JWT_SECRET", "AERO_L2_SESSION_SECRET"), "s" * 40)
    with run_proxy(world, "user", {"AERO_L2_OPEN": "", "AERO_L2_AUTH_MODE": mode, **secrets}) as proxy:
        options = Options(credential=Credential(KEY, delivery), open_timeout_s=30)
        wrong, lost = refused(proxy, options), refused(proxy, options, "/nowhere")
        assert isinstance(wrong, CredentialRefused)
        assert isinstance(lost, NotATunnel)
        target = Target.of(proxy.url, options.credential)
        shown = f"{wrong!r} {wrong} {lost!r} {lost} {options} {target} {target!r} {caplog.text} {proxy.log}"
    assert KEY not in shown
    assert not re.search(r"canary", json.dumps(shown))


def test_example_of_the_document_works(world: World) -> None:
    example = re.search(r"```python\n(# example\n.*?)```", (ROOT / "docs/client.md").read_text(), re.DOTALL)
    assert example is not None
    settings = {"AERO_L2_OPEN": "", "AERO_L2_AUTH_MODE": "token", "AERO_L2_API_KEY": KEY}
    with run_proxy(world, "user", settings) as proxy:
        for key, status, says in ((KEY, 0, "gateway 52:55:0a:00:02:02\nping "), ("wrong", 1, "HTTP 401")):
            done = subprocess.run(
                world.host.enter(sys.executable, "-c", example[1]),
                env={"PATH": os.environ["PATH"], "AERO_URL": proxy.url, "AERO_L2_API_KEY": key},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            said = done.stdout + done.stderr
            assert (done.returncode, said.startswith(says), "Traceback" in said) == (status, True, False), (
                said
            )


def test_reconnecting_sketch_of_the_document_works(proxy: Proxy) -> None:
    sketches = re.findall(r"```python\n(.*?)```", (ROOT / "docs/client.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(sketches[1], names)
    running = threading.Event()

    async def stay() -> None:
        task = asyncio.ensure_future(names["stay"](proxy.url))
        await until(lambda: proxy.metric("l2_sessions_active") == 1, "a tunnel")
        running.set()
        task.cancel()

    inside(proxy.world, stay)
    assert running.is_set()
