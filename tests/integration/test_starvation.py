"""What the machine has once for all – the neighbour table, memory for fragments – cannot be used up by
guests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw
from support import addresses as at
from support import procfs
from support.proxy import Proxy
from support.rawguest import BROADCAST, RawGuest, raw_guest

_GUESTS = 8
_ROUNDS = 3
_SUBNET = [f"10.0.2.{host}" for host in range(1, 255) if host not in (2, 15)]
_FRAGMENTS = 500
# Two entries belong to each tunnel (guest and NAT); the rest is room for the test world's own links.
_ENTRIES_PER_TUNNEL = 8


def _mac_of(address: str) -> str:
    return f"02:00:00:00:02:{int(address.rpartition('.')[2]):02x}"


def _frames(guest: RawGuest) -> list[bytes]:
    """Claims, questions and packets from and to every address of the subnet, and first fragments without a
    second."""
    frames = []
    for address in _SUBNET:
        mac = _mac_of(address)
        for packet, to in (
            (ARP(op=2, hwsrc=mac, psrc=address, hwdst=at.GATEWAY_MAC, pdst=at.GATEWAY), at.GATEWAY_MAC),
            (ARP(op=1, hwsrc=mac, psrc=address, pdst=at.GATEWAY), BROADCAST),
            (ARP(op=1, hwsrc=mac, psrc=address, pdst=address), BROADCAST),
            (IP(src=address, dst=at.GATEWAY) / ICMP(id=1, seq=1), at.GATEWAY_MAC),
            (IP(src=at.GUEST, dst=address) / UDP(sport=1, dport=2), at.GATEWAY_MAC),
        ):
            frames.append(bytes(Ether(src=mac, dst=to) / packet))
    part = Raw(b"f" * 1400)
    for number in range(_FRAGMENTS):
        first = IP(src=at.GUEST, dst=at.WEB, id=number, flags="MF", proto=17) / part
        frames.append(bytes(guest.frame(first)))
    return frames


async def _answer_for_everyone(guest: RawGuest) -> None:
    """Answer every ARP question, whomever it is about."""
    while True:
        packet = Ether(await guest.tunnel.frames.get())
        if ARP in packet and packet[ARP].op == 1:
            asked = packet[ARP]
            mac = guest.mac if asked.pdst == at.GUEST else _mac_of(asked.pdst)
            reply = ARP(op=2, hwsrc=mac, psrc=asked.pdst, hwdst=asked.hwsrc, pdst=asked.psrc)
            await guest.tunnel.send(bytes(Ether(src=mac, dst=asked.hwsrc) / reply))


async def _misbehave(guest: RawGuest) -> None:
    answering = asyncio.create_task(_answer_for_everyone(guest))
    try:
        frames = _frames(guest)
        for turn in range(_ROUNDS):
            for frame in frames:
                await guest.tunnel.send(frame)
            await guest.tunnel.ping(f"round {turn}".encode(), timeout_s=60)
    finally:
        answering.cancel()


@pytest.fixture
async def hostile(proxy: Proxy) -> AsyncIterator[list[RawGuest]]:
    """Eight guests on tunnels of their own."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(raw_guest(proxy)) for _ in range(_GUESTS)]


@pytest.mark.slow
@pytest.mark.alone
async def test_guests_that_fake_a_subnet_starve_neither_host_nor_other_tunnels(
    proxy: Proxy, hostile: list[RawGuest]
) -> None:
    world = proxy.world
    entries, refusals = procfs.arp_cache("entries"), procfs.arp_cache("table_fulls")
    most = entries
    async with raw_guest(proxy) as bystander:
        misbehaving = asyncio.gather(*(_misbehave(guest) for guest in hostile))
        turns = 0
        while not misbehaving.done() or turns < 5:
            turns += 1
            await bystander.echo(f"turn {turns}".encode())
            world.host.run("ip", "neigh", "flush", "dev", "lan0")
            (await asyncio.to_thread(world.host.connect, at.OTHER, at.SERVICE_PORT)).close()
            most = max(most, procfs.arp_cache("entries"))
        await misbehaving
        for guest in hostile:
            await guest.echo(b"well-behaved again")
    assert most - entries <= (_GUESTS + 1) * _ENTRIES_PER_TUNNEL
    assert procfs.arp_cache("table_fulls") == refusals
