"""Guests that go through 60,000 source ports: what it costs is bounded, and the tunnel works afterwards."""

import os
import struct
import threading
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP, UDP
from support import addresses as at
from support import procfs
from support.ns import setns
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import RawGuest, raw_guest
from support.wait import until
from support.world import World

FIRST_PORT = 1024
PORTS = range(FIRST_PORT, FIRST_PORT + 60_000)
NOWHERE = "93.184.216.99"
UDP_FLOWS, TCP_FLOWS = 256, 1024  # the defaults
SPARE = 16  # entries and descriptors that there are without any flow
SOON_S = 15.0

pytestmark = pytest.mark.slow


@pytest.fixture
def unhurried(world: World, proxy_as: RunAs) -> Iterator[Proxy]:
    """A proxy that lets flows begin as fast as they can, and waits for a guest that sends and does not read
    meanwhile, in a world with a black hole."""
    world.internet.run("ip", "route", "add", "blackhole", NOWHERE)
    settings = {
        "AERO_L2_MAX_NEW_FLOWS_PER_SECOND": "0",
        "AERO_L2_TCP_CONNECT_TIMEOUT_MS": "1000",
        "AERO_L2_SEND_STALL_TIMEOUT_MS": "300000",
    }
    try:
        with run_proxy(world, proxy_as, settings) as proxy:
            yield proxy
    finally:
        world.internet.run("ip", "route", "del", "blackhole", NOWHERE)


def entries(proxy: Proxy) -> int:
    """Connection tracking entries of the one tunnel's namespace, those of closed connections included."""
    server = proxy.one("server")
    links = (f"/proc/{server}/fd/{fd}" for fd in os.listdir(f"/proc/{server}/fd"))
    found: list[int] = []

    def read(namespace: str) -> None:
        with open(namespace) as file:
            setns(file.fileno())
        with open("/proc/thread-self/net/stat/nf_conntrack") as file:
            found.append(int(file.read().splitlines()[1].split()[0], 16))

    [namespace] = [link for link in links if procfs.link_of(link).startswith("net:[")]
    thread = threading.Thread(target=read, args=(namespace,))
    thread.start()
    thread.join()
    return found[0]


def descriptors(proxy: Proxy) -> int:
    """Open files of the one tunnel's NAT process."""
    return len(os.listdir(f"/proc/{proxy.one('nat')}/fd"))


def datagram(guest: RawGuest) -> bytearray:
    packet = IP(src=at.GUEST, dst=at.WEB) / UDP(sport=1, dport=at.DISCARD_PORT, chksum=0) / b"x"
    return bytearray(bytes(guest.frame(packet)))


def segment(guest: RawGuest, flags: str) -> bytearray:
    seq = 1000 if flags == "S" else 1001
    packet = IP(src=at.GUEST, dst=NOWHERE) / TCP(sport=1, dport=80, flags=flags, seq=seq)
    return bytearray(bytes(guest.frame(packet)))


def with_port(frame: bytearray, port: int) -> bytes:
    """The frame from another port; TCP's checksum follows (RFC 1624), UDP's is 0: none."""
    before = int.from_bytes(frame[34:36])
    frame[34:36] = struct.pack("!H", port)
    if frame[23] == 6:
        total = (0xFFFF - int.from_bytes(frame[50:52])) + (0xFFFF - before) + port
        frame[50:52] = struct.pack("!H", 0xFFFF - (total % 0xFFFF))
    return bytes(frame)


async def rotate(guest: RawGuest, proxy: Proxy, *frames: bytearray) -> tuple[int, int]:
    """Send the frames from every port; the most entries and descriptors that were seen meanwhile."""
    most = [0, 0]
    for port in PORTS:
        for frame in frames:
            await guest.tunnel.send(with_port(frame, port))
        if port % 2000 == 0:
            await guest.tunnel.ping(b"so far", timeout_s=60)
            most = [max(most[0], entries(proxy)), max(most[1], descriptors(proxy))]
    await guest.tunnel.ping(b"all", timeout_s=60)
    return max(most[0], entries(proxy)), max(most[1], descriptors(proxy))


async def test_udp_ports_in_rotation(unhurried: Proxy) -> None:
    async with raw_guest(unhurried) as guest:
        await guest.echo(b"a flow of its own")
        most_entries, most_descriptors = await rotate(guest, unhurried, datagram(guest))
        assert most_entries <= UDP_FLOWS + SPARE
        assert most_descriptors <= UDP_FLOWS + SPARE
        refused = len(PORTS) - (UDP_FLOWS - 1)
        counter = "l2_udp_flow_limit_exceeded_total"
        await until(lambda: unhurried.metric(counter) == refused, f"{refused} are refused", SOON_S)
        active = "l2_udp_flows_active"
        await until(lambda: unhurried.metric(active) == UDP_FLOWS, "events lost are made up for", SOON_S)
        assert await guest.try_tcp(at.WEB, at.HTTP_PORT) == "answered"


async def test_tcp_ports_in_rotation(unhurried: Proxy) -> None:
    async with raw_guest(unhurried) as guest:
        await guest.echo(b"the NAT is up")
        most_entries, most_descriptors = await rotate(guest, unhurried, segment(guest, "S"))
        limit = procfs.descriptor_limits(unhurried.one("nat"))[0]
        assert most_descriptors <= limit
        # What has ended is kept until the kernel comes by to clear it away.
        assert most_entries <= 3 * TCP_FLOWS + SPARE
        await until(lambda: unhurried.metric("l2_tcp_conns_active") <= TCP_FLOWS, "as the limit says", SOON_S)
        guest.drain()
        await guest.echo(b"works as before")


async def refusal(guest: RawGuest) -> str:
    """What ends a connect; one whose SYN was lost in the NAT's full queue is tried again."""
    for _ in range(20):
        ended = await guest.try_tcp(at.WEB, at.HTTP_PORT)
        if ended != "reset":
            break
    return ended


async def test_nat_process_that_runs_out_of_descriptors_serves_what_it_has(unhurried: Proxy) -> None:
    """A guest that resets its connects is held by no limit of flows, but libslirp keeps their sockets."""
    async with raw_guest(unhurried) as guest, raw_guest(unhurried) as bystander:
        await bystander.echo(b"the NAT is up")
        await guest.udp(at.WEB, at.ECHO_PORT, b"the NAT is up", FIRST_PORT - 1, again_s=0.2)
        nats = unhurried.with_role("nat")
        frames = [segment(guest, "S"), segment(guest, "R")]
        for port in PORTS:
            for frame in frames:
                await guest.tunnel.send(with_port(frame, port))
        await guest.tunnel.ping(b"all", timeout_s=60)
        limit = procfs.descriptor_limits(nats[0])[0]
        open_files = [len(os.listdir(f"/proc/{nat}/fd")) for nat in nats]
        assert max(open_files) == limit, "it did not come to that"
        guest.drain()
        await guest.tunnel.ping(b"meanwhile", timeout_s=60)
        assert await refusal(guest) == "unreachable"
        await guest.udp(at.WEB, at.ECHO_PORT, b"a flow that is open goes on", FIRST_PORT - 1)
        assert await bystander.try_tcp(at.WEB, at.HTTP_PORT) == "answered"
        assert unhurried.with_role("nat") == nats
