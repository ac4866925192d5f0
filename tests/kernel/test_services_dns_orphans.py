"""Connections of a guest that leaves them in the air: the kernel keeps none of them for long."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import dns.message
import pytest
from kernel.test_services_dns_lab import FIRST, WEB, Lab, Upstream, framed, lab, says
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from support.wait import until

from aero_l2.services.dns.server import DnsServer
from aero_l2.services.dns.tcp import MAX_CONNECTIONS

ADDRESS: Final = "10.0.2.77"
MAC: Final = "02:00:00:00:00:4d"
SYN, ACK, FIN = 0x02, 0x10, 0x01
ESTABLISHED, LISTEN = "01", "0A"


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path) as made:
        yield made


class RawClient:
    """A host beside the guest that has no TCP of its own: it sends what it is told and nothing else."""

    def __init__(self, ground: Lab) -> None:
        ground.gateway.run(
            "ip", "neigh", "replace", ADDRESS, "lladdr", MAC, "dev", "tap0", "nud", "permanent"
        )
        gateway = json.loads(ground.gateway.run("ip", "-json", "link", "show", "tap0"))[0]["address"]
        self._head = Ether(src=MAC, dst=gateway) / IP(src=ADDRESS, dst="10.0.2.2")
        self._sock = ground.guest.open_socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._sock.bind(("eth0", 0x0800))
        self._sock.setblocking(False)

    def close(self) -> None:
        self._sock.close()

    def send(self, port: int, flags: int, seq: int, ack: int = 0, data: bytes = b"") -> None:
        segment = TCP(sport=port, dport=53, flags=flags, seq=seq, ack=ack, window=64000)
        self._sock.send(bytes(self._head / segment / Raw(data)))

    async def connect(self, port: int) -> int:
        """Shake hands from `port`; returns what acknowledges the gateway's SYN. Our next byte is 1001."""
        self.send(port, SYN, 1000)
        loop = asyncio.get_running_loop()
        while True:
            found: Packet = Ether(await asyncio.wait_for(loop.sock_recv(self._sock, 2000), 5))
            if TCP in found and found[TCP].dport == port and int(found[TCP].flags) & SYN:
                ack = int(found[TCP].seq) + 1
                self.send(port, ACK, 1001, ack)
                return ack


def states(ground: Lab) -> list[str]:
    """The state of every TCP socket of the gateway that is neither open nor listening (tcp_states.h)."""
    lines = ground.gateway.run("cat", "/proc/net/tcp").splitlines()[1:]
    return [state for line in lines if (state := line.split()[3]) not in (ESTABLISHED, LISTEN)]


def play(ground: Lab, scenario: Callable[[RawClient, DnsServer], Awaitable[None]]) -> None:
    async def run(ground: Lab, server: DnsServer) -> None:
        client = RawClient(ground)
        try:
            await scenario(client, server)
        finally:
            client.close()

    ground.play({FIRST: Upstream(says(f"60 A {WEB}"))}, run)


def test_connections_over_the_limit_leave_no_orphan(ground: Lab) -> None:
    async def scenario(client: RawClient, server: DnsServer) -> None:
        async with AsyncExitStack() as stack:
            for _ in range(MAX_CONNECTIONS):
                await stack.enter_async_context(ground.stream())
            await until(lambda: server.connections == MAX_CONNECTIONS, "all connections stand")
            for port in range(3000, 3040):
                await client.connect(port)
            await asyncio.sleep(0.2)
            assert states(ground) == []

    play(ground, scenario)


def test_idle_connection_leaves_no_orphan(ground: Lab) -> None:
    ground.tcp_idle_s = 0.3

    async def scenario(client: RawClient, server: DnsServer) -> None:
        await client.connect(3000)
        await until(lambda: server.connections == 1, "the connection stands")
        await until(lambda: server.connections == 0, "it was idle for too long")
        assert states(ground) == []

    play(ground, scenario)


def test_connection_without_a_query_leaves_no_orphan(ground: Lab) -> None:
    async def scenario(client: RawClient, server: DnsServer) -> None:
        ack = await client.connect(3000)
        await until(lambda: server.connections == 1, "the connection stands")
        client.send(3000, FIN | ACK, 1001, ack)
        await until(lambda: server.connections == 0, "it has ended")
        assert states(ground) == []

    play(ground, scenario)


@pytest.mark.slow
def test_answer_that_is_never_acknowledged_is_given_up_soon(ground: Lab) -> None:
    async def scenario(client: RawClient, server: DnsServer) -> None:
        ack = await client.connect(3000)
        query = framed(dns.message.make_query("x.test.", "A"))
        client.send(3000, FIN | ACK, 1001, ack, query)
        await until(lambda: server.connections == 0 and ground.counts.queries == 1, "it was answered")
        assert len(states(ground)) == 1
        await until(lambda: states(ground) == [], "the kernel gave up", 8)

    play(ground, scenario)


def test_server_that_closes_leaves_no_orphan(ground: Lab) -> None:
    async def scenario(client: RawClient, server: DnsServer) -> None:
        for port in range(3000, 3010):
            await client.connect(port)
        await until(lambda: server.connections == 10, "the connections stand")
        await server.close()
        assert states(ground) == []

    play(ground, scenario)
