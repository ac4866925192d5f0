"""Limits of bytes and packets a second on the running proxy: TCP adapts, what is too much is counted."""

import asyncio
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from support import addresses as at
from support.nsguest import NamespaceGuest, ns_guest
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import MAC, raw_guest
from support.wait import until
from support.world import World

BYTES_PER_SECOND = 2_500_000
BURST = 250_000
PACKETS_PER_SECOND = 100
_ECHO_GOAL_S = 0.02
_ECHO = """
import socket, sys, time
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
until = time.monotonic() + float(sys.argv[3])
while time.monotonic() < until:
    began = time.monotonic()
    peer.sendall(b"e")
    assert peer.recv(1) == b"e"
    print(time.monotonic() - began)
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def limited(world: World, proxy_as: RunAs) -> Iterator[Proxy]:
    """A proxy with a limit of bytes."""
    with run_proxy(world, proxy_as, {"AERO_L2_MAX_BYTES_PER_SECOND": str(BYTES_PER_SECOND)}) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def counted(world: World, proxy_as: RunAs) -> Iterator[Proxy]:
    """A proxy with a limit of packets, and more of them at once than in a second."""
    settings = {
        "AERO_L2_MAX_PACKETS_PER_SECOND": str(PACKETS_PER_SECOND),
        "AERO_L2_MAX_PACKETS_PER_SECOND_BURST": "150",
    }
    with run_proxy(world, proxy_as, settings) as proxy:
        yield proxy


TRANSFERS = {
    "download": f"curl -sS http://{at.WEB}/16MiB 2>&- | head -c {{size}} | wc -c",
    "upload": f"curl -sS --fail -T {{file}} http://{at.WEB}/upload",
}


@pytest.mark.slow
@pytest.mark.parametrize("direction", TRANSFERS)
@pytest.mark.parametrize("flows", [1, 4])
async def test_tcp_gets_what_the_limit_permits_and_leaves_another_flow_quick(
    limited: Proxy, direction: str, flows: int, tmp_path: Path
) -> None:
    size = at.PAYLOAD_BYTES // flows
    (tmp_path / "data").write_bytes(bytes(size))
    transfer = TRANSFERS[direction].format(size=size, file=tmp_path / "data")
    async with limited.tunnel() as tunnel, ns_guest(tunnel) as guest:
        await _work(guest)
        enough_s = 0.8 * at.PAYLOAD_BYTES / BYTES_PER_SECOND
        began = time.monotonic()
        echoes, *said = await asyncio.gather(
            guest.run("python3", "-c", _ECHO, at.WEB, str(at.ECHO_PORT), str(enough_s)),
            *(guest.run("sh", "-c", transfer, timeout_s=120) for _ in range(flows)),
        )
        spent = time.monotonic() - began
    if direction == "download":
        assert said == [b"%d\n" % size] * flows
    goodput = (at.PAYLOAD_BYTES - BURST) / spent
    assert 0.7 * BYTES_PER_SECOND < goodput < 1.1 * BYTES_PER_SECOND
    assert statistics.median(float(line) for line in echoes.split()) < 5 * _ECHO_GOAL_S


async def _work(guest: NamespaceGuest) -> None:
    """Wait until the tunnel carries TCP."""
    await guest.run("curl", "-sS", "--fail", "--retry", "5", "--max-time", "20", f"http://{at.WEB}/hello")


@pytest.mark.slow
async def test_datagrams_beyond_the_limit_are_dropped_and_counted(limited: Proxy) -> None:
    before = limited.metric("l2_frames_dropped_total")
    async with raw_guest(limited) as guest:
        await guest.echo(b"works")
        frame = bytes(
            Ether(src=MAC, dst=at.GATEWAY_MAC)
            / IP(src=at.GUEST, dst=at.WEB)
            / UDP(sport=30000, dport=at.DISCARD_PORT)
            / Raw(b"x" * 1400)
        )
        for _ in range(5000):
            await guest.tunnel.send(frame)
        await until(
            lambda: limited.metric("l2_frames_dropped_total") > before + 100, "lost frames are counted", 30
        )
        await guest.echo(b"still works")


async def test_frames_beyond_the_limit_of_packets_are_dropped_and_the_tunnel_stays(counted: Proxy) -> None:
    before = counted.metric("l2_frames_dropped_total")
    async with raw_guest(counted) as guest:
        await guest.echo(b"works")
        frame = bytes(Ether(src=MAC, dst=at.GATEWAY_MAC) / IP(src=at.GUEST, dst=at.GATEWAY) / UDP(dport=9))
        began, sent = time.monotonic(), 2000
        for _ in range(sent):
            await guest.tunnel.send(frame)
        await guest.tunnel.ping(b"all of them were taken")
        dropped = counted.metric("l2_frames_dropped_total") - before
        passed = sent - dropped
        assert 100 <= passed <= 151 + PACKETS_PER_SECOND * (time.monotonic() - began)
        await guest.echo(b"still works")


async def test_another_tunnel_is_not_slowed_down(counted: Proxy) -> None:
    async with raw_guest(counted) as first, raw_guest(counted) as second:
        await second.echo(b"works")
        frame = bytes(Ether(src=MAC, dst=at.GATEWAY_MAC) / IP(src=at.GUEST, dst=at.GATEWAY) / UDP(dport=9))
        for _ in range(1000):
            await first.tunnel.send(frame)
        await first.tunnel.ping(b"all of them were taken")
        for number in range(20):
            await second.echo(b"%d" % number)


async def test_a_tenth_of_a_second_passes_at_once(limited: Proxy) -> None:
    """The default burst, as docs/settings.md has it."""
    frame = bytes(
        Ether(src=MAC, dst=at.GATEWAY_MAC)
        / IP(src=at.GUEST, dst=at.WEB)
        / UDP(sport=30001, dport=at.DISCARD_PORT)
        / Raw(b"x" * 1400)
    )
    before = limited.metric("l2_frames_dropped_total")
    async with raw_guest(limited) as guest:
        await guest.echo(b"works")
        for _ in range(BURST // len(frame)):
            await guest.tunnel.send(frame)
        await guest.echo(b"and works")
    assert limited.metric("l2_frames_dropped_total") == before
