"""Connections that a guest closes for the kernel but not for the NAT process, or opens again unseen."""

import itertools

import pytest
from scapy.layers.inet import IP, TCP
from scapy.packet import Packet
from support import addresses as at
from support.proxy import RunAs, run_proxy
from support.rawguest import RawGuest, raw_guest
from support.world import World

LIMIT = 8
CONNECTS = 16
LATER = 1_000_000

pytestmark = pytest.mark.slow


def tcp(sport: int, flags: str, seq: int, ack: int = 0, ttl: int = 64) -> Packet:
    header = TCP(sport=sport, dport=at.ECHO_PORT, flags=flags, seq=seq, ack=ack, window=60000)
    return IP(src=at.GUEST, dst=at.WEB, ttl=ttl) / header


async def open_connection(guest: RawGuest, sport: int, seq: int) -> int | None:
    """The other side's sequence number; None where it is refused, or nobody answers."""

    def answer(packet: Packet) -> Packet | None:
        fits = TCP in packet and packet[IP].src == at.WEB and packet[TCP].dport == sport
        return packet[TCP] if fits and (packet[TCP].flags.R or packet[TCP].ack == seq + 1) else None

    await guest.send(tcp(sport, "S", seq))
    try:
        found = await guest.expect(answer, 0.5)
    except TimeoutError:
        return None
    if found.flags.R:
        return None
    await guest.send(tcp(sport, "A", seq + 1, found.seq + 1))
    return int(found.seq)


@pytest.mark.parametrize("way", ["its reset does not get out", "it opens closed ones again"])
async def test_guest_never_holds_more_connections_than_it_may(
    world: World, proxy_as: RunAs, way: str
) -> None:
    limits = {"AERO_L2_STACK_MAX_TCP_CONNECTIONS": str(LIMIT)}
    with run_proxy(world, proxy_as, limits) as proxy:
        async with raw_guest(proxy) as guest:
            await guest.echo(b"the NAT is up")
            ports = itertools.count(30000)
            for sport in itertools.islice(ports, CONNECTS):
                theirs = await open_connection(guest, sport, 1000)
                if theirs is None:
                    break
                if way == "its reset does not get out":
                    await guest.send(tcp(sport, "RA", 1001, theirs + 1, ttl=1))
                    continue
                await open_connection(guest, sport - 1, LATER)
                await guest.send(tcp(sport, "R", 1001))
                await guest.send(tcp(sport, "A", 1001, theirs + 1))
            held = world.host.run("ss", "-Htn", "state", "established", "dst", at.WEB).count("\n")
            assert held <= LIMIT
