"""Any frame at all leaves the proxy and other tunnels unharmed, and the tunnel that sent it, too."""

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_RA, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw
from support import addresses as at
from support.proxy import Proxy
from support.rawguest import BROADCAST, MAC, RawGuest, raw_guest

pytestmark = pytest.mark.slow

_LARGEST = 2048
_SEED = 20  # the same garbage in every run


def _framed(packet: Packet, to: str = at.GATEWAY_MAC, source: str = MAC) -> bytes:
    return bytes(Ether(src=source, dst=to) / packet)


def _runts() -> Iterator[bytes]:
    whole = _framed(IP(src=at.GUEST, dst=at.WEB) / UDP(sport=1, dport=at.ECHO_PORT) / (b"x" * 20))
    for size in range(60):
        yield bytes(size)
        yield whole[:size]
        yield b"\xff" * size


def _garbage() -> Iterator[bytes]:
    chance = random.Random(_SEED)
    header = _framed(IP())[:14]
    for size in (_LARGEST, 1515, 1514, 1500, 64):
        for _ in range(20):
            yield chance.randbytes(size)
            yield header + chance.randbytes(size - len(header))
            yield b"\xff" * 6 + chance.randbytes(size - 6)


def _mutations() -> Iterator[bytes]:
    chance = random.Random(_SEED)
    seeds = [
        _framed(
            IP(src=at.GUEST, dst=at.WEB) / TCP(sport=1, dport=80, options=[("MSS", 1460), ("WScale", 7)])
        ),
        _framed(IP(src=at.GUEST, dst=at.WEB, flags="MF") / UDP(sport=1, dport=7) / b"part"),
        _framed(IP(src=at.GUEST, dst=at.GATEWAY) / UDP(sport=1, dport=53) / bytes(30)),
        _framed(IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / bytes(300), BROADCAST),
        _framed(ARP(op=1, psrc=at.GUEST, pdst=at.GATEWAY), BROADCAST),
        _framed(
            IP(src=at.GUEST, dst=at.WEB) / ICMP(type=3, code=4) / bytes(IP(src=at.WEB, dst=at.GUEST) / TCP())
        ),
    ]
    for seed in seeds:
        for _ in range(100):
            mutated = bytearray(seed)
            for _ in range(chance.randint(1, 6)):
                mutated[chance.randrange(12, len(mutated))] = chance.randrange(256)
            yield bytes(mutated[: chance.randint(14, len(mutated))] if chance.random() < 0.2 else mutated)


def _tagged() -> Iterator[bytes]:
    inner = IP(src=at.GUEST, dst=at.LOOPBACK) / UDP(sport=1, dport=at.SERVICE_PORT) / b"tagged"
    for identifier in (0, 1, 100, 4095):
        yield _framed(Dot1Q(vlan=identifier, type=0x0800) / inner)
        yield _framed(Dot1Q(vlan=identifier) / Dot1Q(vlan=1, type=0x0800) / inner)
        yield bytes(
            Ether(src=MAC, dst=at.GATEWAY_MAC, type=0x88A8) / Dot1Q(vlan=identifier, type=0x0800) / inner
        )


def _broken_headers() -> Iterator[bytes]:
    body = UDP(sport=1, dport=at.ECHO_PORT) / b"broken"
    for fields in (
        {"version": 5},
        {"version": 15},
        {"ihl": 1},
        {"ihl": 15},
        {"len": 1},
        {"len": 65535},
        {"ttl": 0},
        {"chksum": 1},
        {"frag": 8191, "flags": "MF"},
        {"proto": 255},
        {"proto": 4},
        {"flags": "evil"},
    ):
        yield _framed(IP(src=at.GUEST, dst=at.WEB, **fields) / body)
    for data_offset in range(16):
        yield _framed(IP(src=at.GUEST, dst=at.WEB) / TCP(sport=1, dport=80, dataofs=data_offset, flags="S"))
    for flags in range(0, 512, 7):
        yield _framed(IP(src=at.GUEST, dst=at.WEB) / TCP(sport=1, dport=80, flags=flags, urgptr=9))
    for size in (0, 1, 7, 65535):
        yield _framed(IP(src=at.GUEST, dst=at.WEB) / UDP(sport=1, dport=at.ECHO_PORT, len=size) / b"lying")


def _odd_neighbours() -> Iterator[bytes]:
    for source in ("00:00:00:00:00:00", BROADCAST, "01:00:5e:00:00:01", at.GATEWAY_MAC):
        yield _framed(IP(src=at.GUEST, dst=at.WEB) / UDP(sport=1, dport=at.ECHO_PORT) / b"odd", source=source)
    odd: list[dict[str, Any]] = [{"hwlen": 255}, {"plen": 255}, {"hwlen": 0}, {"hwtype": 99}, {"op": 99}]
    for fields in odd:
        yield _framed(ARP(psrc=at.GUEST, pdst=at.GATEWAY, **fields), BROADCAST)
    yield _framed(ARP(op=2, hwsrc=MAC, psrc=at.GATEWAY, pdst=at.GATEWAY), BROADCAST)
    yield _framed(ARP(op=2, hwsrc=MAC, psrc=at.NAT, pdst=at.NAT_SIDE), BROADCAST)
    yield _framed(IPv6(src="fe80::1", dst="ff02::1") / ICMPv6ND_RA(), "33:33:00:00:00:01")
    yield _framed(IPv6(src="fe80::1", dst="ff02::1") / ICMPv6ND_NA(tgt="fe80::2"), "33:33:00:00:00:01")


def _overlapping_fragments() -> Iterator[bytes]:
    for identifier in range(50):
        for offset, flags, size in ((0, "MF", 64), (4, "MF", 64), (1, 0, 8), (8190, "MF", 64), (0, 0, 8)):
            packet = IP(src=at.GUEST, dst=at.WEB, id=identifier, frag=offset, flags=flags, proto=17)
            yield _framed(packet / Raw(b"f" * size))


KINDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "runts": _runts,
    "garbage": _garbage,
    "mutations": _mutations,
    "vlan-tags": _tagged,
    "broken-headers": _broken_headers,
    "odd-neighbours": _odd_neighbours,
    "overlapping-fragments": _overlapping_fragments,
}


@pytest.mark.parametrize("kind", KINDS)
async def test_no_frame_harms_anyone(proxy: Proxy, kind: str) -> None:
    async with raw_guest(proxy) as hostile, raw_guest(proxy) as bystander:
        await hostile.echo(b"the NAT is up")  # else nothing would get through, whatever the rules
        for frame in KINDS[kind]():
            await hostile.tunnel.send(frame)
        await hostile.tunnel.ping(b"all taken")
        await bystander.echo(b"bystander")
        await hostile.echo(b"hostile one, now well-behaved")
        assert bystander.tunnel.is_open
        assert hostile.tunnel.is_open
    reached = [event for service in proxy.world.denied_services() for event in service.with_data(b"tagged")]
    assert reached == []


def _flood(guest: RawGuest, kind: str) -> list[bytes]:
    """Ready-made frames, so that sending them is all that costs during the flood."""
    if kind == "unknown-destinations":
        return [_framed(IP(src=at.GUEST, dst=at.WEB), "02:99:00:00:00:01").ljust(60, b"\0")] * 20_000
    if kind == "pings":
        return [
            bytes(guest.frame(IP(src=at.GUEST, dst=at.GATEWAY) / ICMP(id=1, seq=1) / (b"p" * 32)))
        ] * 10_000
    ports = range(10_000, 12_000)
    if kind == "connections":
        return [
            bytes(guest.frame(IP(src=at.GUEST, dst=at.WEB) / TCP(sport=p, dport=at.DISCARD_PORT)))
            for p in ports
        ]
    return [
        bytes(guest.frame(IP(src=at.GUEST, dst=at.CDN) / UDP(sport=p, dport=at.ECHO_PORT) / b"u"))
        for p in ports
    ]


@pytest.mark.parametrize("kind", ["unknown-destinations", "pings", "connections", "datagrams"])
async def test_flood_of_one_tunnel_leaves_another_working(proxy: Proxy, kind: str) -> None:
    async with raw_guest(proxy) as hostile, raw_guest(proxy) as bystander:
        frames = _flood(hostile, kind)

        async def flood() -> None:
            for frame in frames:
                await hostile.tunnel.send(frame)

        flooding = asyncio.create_task(flood())
        answered = 0
        while not flooding.done() or answered < 5:
            await bystander.echo(f"during the flood {answered}".encode())
            answered += 1
        await flooding
        await hostile.tunnel.ping(b"all taken", timeout_s=60)
        assert hostile.tunnel.is_open
    assert proxy.get("/healthz")[0] == 200
