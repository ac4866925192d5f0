"""Tunnels of raw frames on the running proxy: the same LAN, policy and walls, whatever comes in."""

import asyncio
import random
from collections.abc import Iterator

import pytest
from support import addresses as at
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import RawGuest, raw_guest
from support.tunnel import RawTunnel, RefusedError
from support.world import World

_SEED = 86  # the same garbage in every run


@pytest.fixture(scope="module")
def raw_proxy(world: World, proxy_as: RunAs) -> Iterator[Proxy]:
    with run_proxy(world, proxy_as, {"AERO_L2_RAW_FRAMES": "1"}) as proxy:
        yield proxy


async def test_raw_frames_get_lease_dns_and_the_internet(raw_proxy: Proxy) -> None:
    async with raw_proxy.raw_tunnel() as tunnel:
        guest = RawGuest(tunnel)
        lease = await guest.dhcp()
        assert (lease["address"], lease["router"], lease["name_server"]) == (at.GUEST, at.GATEWAY, at.GATEWAY)
        assert (await guest.resolve("web.example.test")).an[0].rdata == at.WEB
        assert await guest.ping(at.GATEWAY)
        assert await guest.try_tcp(at.WEB, at.HTTP_PORT) == "answered"
        await guest.echo(b"through the NAT")


@pytest.mark.parametrize(
    "target", [at.LOOPBACK, at.HOST_PUBLIC, at.HOST_PRIVATE, at.OTHER, at.PRIVATE_SITE, at.METADATA, at.NAT]
)
async def test_policy_holds_for_raw_frames(raw_proxy: Proxy, target: str) -> None:
    marker = f"raw frames to {target}".encode()
    async with raw_proxy.raw_tunnel() as tunnel:
        guest = RawGuest(tunnel)
        assert await guest.try_tcp(target, at.SERVICE_PORT) == "reset"
        assert await guest.try_udp(target, at.SERVICE_PORT, marker) == "prohibited"
        assert await guest.try_icmp(target) == "prohibited"
    assert not [event for served in raw_proxy.world.denied_services() for event in served.with_data(marker)]


async def test_raw_tunnel_and_another_are_strangers(raw_proxy: Proxy) -> None:
    """Each sends to the other's addresses, and to all; neither sees anything of it."""
    async with raw_proxy.raw_tunnel() as tunnel, raw_guest(raw_proxy) as other:
        guest = RawGuest(tunnel, "02:00:00:00:00:86")
        for sender, receiver, marker in ((guest, other, b"from v86"), (other, guest, b"from l2")):
            for to in (receiver.mac, "ff:ff:ff:ff:ff:ff"):
                await sender.tunnel.send(
                    bytes.fromhex((to + sender.mac).replace(":", "")) + b"\x88\xb5" + marker
                )
            await sender.echo(b"after it")
            await receiver.echo(b"after it")
            assert not [frame for frame in receiver.drain() if marker in frame]


async def test_endpoint_is_off_by_default(proxy: Proxy) -> None:
    with pytest.raises(RefusedError) as refused:
        await proxy.raw_tunnel().__aenter__()
    assert (refused.value.status, refused.value.body) == (404, "not found")


def _rubbish() -> Iterator[bytes | str]:
    chance = random.Random(_SEED)
    for size in (0, 1, 13, 14, 15, 59, 60, 1514, 1515, 2047, 2048):
        yield bytes(size)
        yield b"\xff" * size
        for _ in range(30):
            yield chance.randbytes(size)
            yield b"\xa2\x03" + chance.randbytes(max(0, size - 2))
        yield "t" * size


@pytest.mark.slow
async def test_rubbish_on_a_raw_tunnel_harms_nobody(raw_proxy: Proxy) -> None:
    async with raw_proxy.raw_tunnel() as tunnel, raw_guest(raw_proxy) as bystander:
        hostile = RawGuest(tunnel)
        await hostile.echo(b"the NAT is up")
        for message in _rubbish():
            await tunnel.send_message(message)
        await bystander.echo(b"bystander")
        await hostile.echo(b"hostile one, now well-behaved")


@pytest.mark.slow
async def test_flood_of_a_raw_tunnel_leaves_another_working(raw_proxy: Proxy) -> None:
    async with raw_proxy.raw_tunnel() as tunnel, raw_guest(raw_proxy) as bystander:
        flooding = asyncio.create_task(_flood(tunnel))
        answered = 0
        while not flooding.done() or answered < 5:
            await bystander.echo(f"during the flood {answered}".encode())
            answered += 1
        await flooding
        await RawGuest(tunnel).echo(b"the flood is over")


async def _flood(tunnel: RawTunnel) -> None:
    for _ in range(5_000):
        for message in (b"", b"\xff" * 60, "text", b"x"):
            await tunnel.send_message(message)


async def test_message_over_the_limit_ends_its_tunnel_and_no_other(raw_proxy: Proxy) -> None:
    async with raw_proxy.raw_tunnel() as tunnel, raw_proxy.raw_tunnel() as other:
        await tunnel.send_message(bytes(2049))
        assert (await tunnel.closed())[0] == 1009
        assert tunnel.frames.empty()
        await RawGuest(other).echo(b"unharmed")


async def test_restart_closes_raw_tunnels_with_1001(world: World, proxy_as: RunAs) -> None:
    with run_proxy(world, proxy_as, {"AERO_L2_RAW_FRAMES": "1"}) as proxy:
        async with proxy.raw_tunnel() as tunnel:
            proxy.terminate()
            assert await tunnel.closed() == (1001, "shutting down")
        assert proxy.wait() == 0
