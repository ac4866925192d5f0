"""The ground for the DNS tests: a host with scripted upstreams on its loopback, a gateway, and a guest.

Everything async runs on a loop inside the host's namespace, so no query can reach a real resolver.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

import dns.message
import dns.rcode
import dns.rdata
from dns.message import Message
from support.ns import Namespace, link, namespace
from support.wait import until

from aero_l2.policy.egress import EgressPolicy
from aero_l2.services.dns.openings import OpenedAddresses
from aero_l2.services.dns.resolver import Resolver, ResolverSettings
from aero_l2.services.dns.server import DnsServer
from aero_l2.tasks import running

FIRST, SECOND = "127.0.0.53", "127.0.0.54"
HOST_ADDRESS = IPv4Address("93.184.216.99")
WEB = "93.184.216.34"


@dataclass
class Upstream:
    """A scripted name server: what it answers over UDP (any number of datagrams) and TCP, and what came."""

    udp: Callable[[Message], list[bytes]]
    tcp: Callable[[Message], bytes | None] = lambda query: None
    delay_s: float = 0.0
    from_elsewhere: bool = False
    asked: list[tuple[str, Message]] = field(default_factory=list)

    def datagram(self, sock: socket.socket) -> None:
        wire, peer = sock.recvfrom(4096)
        query = dns.message.from_wire(wire)
        self.asked.append(("udp", query))
        asyncio.get_running_loop().call_later(self.delay_s, self._send, sock, query, peer)

    def _send(self, sock: socket.socket, query: Message, peer: tuple[str, int]) -> None:
        if sock.fileno() < 0:
            return
        for answer in self.udp(query):
            if self.from_elsewhere:
                with socket.socket(type=socket.SOCK_DGRAM) as other:
                    other.sendto(answer, peer)
            else:
                sock.sendto(answer, peer)

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            wire = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            query = dns.message.from_wire(wire)
            self.asked.append(("tcp", query))
            answer = self.tcp(query)
            if answer is not None:
                writer.write(len(answer).to_bytes(2, "big") + answer)


def reply(query: Message, *records: str, rcode: str = "NOERROR") -> Message:
    """An answer to `query` with records of its own name: `60 A 1.2.3.4`."""
    response = dns.message.make_response(query, recursion_available=True)
    response.set_rcode(dns.rcode.from_text(rcode))
    for record in records:
        ttl, kind, data = record.split(" ", 2)
        rdata = dns.rdata.from_text("IN", kind, data)
        rrset = response.find_rrset(
            response.answer, query.question[0].name, rdata.rdclass, rdata.rdtype, create=True
        )
        rrset.add(rdata, int(ttl))
    return response


def says(*records: str, rcode: str = "NOERROR") -> Callable[[Message], list[bytes]]:
    """A script: one datagram, the same records for whatever is asked."""
    return lambda query: [reply(query, *records, rcode=rcode).to_wire()]


@dataclass
class Counts:
    """The metrics hooks."""

    queries: int = 0
    failures: int = 0
    denied: int = 0

    def dns_query(self) -> None:
        self.queries += 1

    def dns_failure(self) -> None:
        self.failures += 1

    def dns_answer(self, rcode: int) -> None:
        pass

    def dns_denied(self) -> None:
        self.denied += 1


@dataclass
class Lab:
    """The namespaces, and what one scenario works with."""

    host: Namespace
    gateway: Namespace
    guest: Namespace
    folder: Path
    settings: ResolverSettings = field(default_factory=ResolverSettings)
    max_pending: int = 128
    tcp_idle_s: float = 10.0
    resolv_conf: str | None = None
    counts: Counts = field(default_factory=Counts)
    host_addresses: Callable[[], frozenset[IPv4Address]] = lambda: frozenset({HOST_ADDRESS})
    opened: Callable[[], OpenedAddresses | None] = lambda: None

    def play(
        self, upstreams: Mapping[str, Upstream], scenario: Callable[["Lab", DnsServer], Awaitable[None]]
    ) -> None:
        """Run `scenario` on a loop in the host's namespace; afterwards no task and no descriptor is left.

        `upstreams` by their address, with `#port` where it is not 53.
        """

        async def run() -> None:
            before = _descriptors()
            async with self._serving(upstreams) as server:
                await scenario(self, server)
            await until(lambda: _descriptors() <= before, "every descriptor is closed")
            assert {task.get_name() for task in running()} == set()

        self.host.call(lambda: asyncio.run(run()))

    @asynccontextmanager
    async def _serving(self, upstreams: Mapping[str, Upstream]) -> AsyncIterator[DnsServer]:
        async with AsyncExitStack() as stack:
            for address, upstream in upstreams.items():
                await stack.enter_async_context(_upstream(address, upstream))
            conf = self.folder / "resolv.conf"
            conf.write_text(
                self.resolv_conf or "".join(f"nameserver {at.split('#')[0]}\n" for at in upstreams)
            )
            udp = stack.enter_context(self._bound(socket.SOCK_DGRAM))
            tcp = stack.enter_context(self._bound(socket.SOCK_STREAM))
            server = DnsServer(
                udp.fileno(),
                tcp.fileno(),
                Resolver(self.settings, conf),
                EgressPolicy(),
                self.host_addresses,
                self.counts,
                max_pending=self.max_pending,
                tcp_idle_s=self.tcp_idle_s,
                opened=self.opened(),
            )
            server.start()
            stack.push_async_callback(server.close)
            yield server

    @contextmanager
    def _bound(self, kind: socket.SocketKind) -> Iterator[socket.socket]:
        with self.gateway.open_socket(kind=kind) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("10.0.2.2", 53))
            if kind == socket.SOCK_STREAM:
                sock.listen(64)
            sock.setblocking(False)
            yield sock

    async def ask(self, name: str, rdtype: str = "A", **options: object) -> Message:
        """Ask over UDP as the guest would."""
        query = dns.message.make_query(name, rdtype, **options)  # type: ignore[arg-type]
        return dns.message.from_wire(await self.raw(query.to_wire()))

    async def raw(self, wire: bytes, timeout_s: float = 5.0) -> bytes:
        """Send any datagram as the guest, wait for one back."""
        with self.guest.open_socket(kind=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("10.0.2.2", 53))
            sock.send(wire)
            return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 65535), timeout_s)

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A TCP connection of the guest to the gateway's port 53."""
        reader, writer = await asyncio.open_connection(sock=self.guest.connect("10.0.2.2", 53))
        try:
            yield reader, writer
        finally:
            writer.close()


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def take(reader: asyncio.StreamReader) -> Message:
    """Read one answer from a TCP connection."""
    size = int.from_bytes(await asyncio.wait_for(reader.readexactly(2), 5), "big")
    return dns.message.from_wire(await asyncio.wait_for(reader.readexactly(size), 5))


def framed(query: Message) -> bytes:
    """A query as it goes over TCP."""
    return query.to_wire(prepend_length=True)


@asynccontextmanager
async def _upstream(place: str, upstream: Upstream) -> AsyncIterator[None]:
    address, _, port = place.partition("#")
    number = int(port or 53)
    server = await asyncio.start_server(upstream.stream, address, number)
    with socket.socket(server.sockets[0].family, socket.SOCK_DGRAM) as sock:
        sock.bind((address, number))
        loop = asyncio.get_running_loop()
        loop.add_reader(sock.fileno(), upstream.datagram, sock)
        try:
            yield
        finally:
            loop.remove_reader(sock.fileno())
            server.close()
            await server.wait_closed()


@contextmanager
def lab(folder: Path) -> Iterator[Lab]:
    """Make the namespaces: the guest sees the gateway only, the host its loopback only."""
    with namespace("host") as host, namespace("gateway") as gateway, namespace("guest") as guest:
        link(gateway, "tap0", "10.0.2.2/24", guest, "eth0", "10.0.2.15/24")
        yield Lab(host, gateway, guest, folder)


def test_the_lab_has_no_way_out(tmp_path: Path) -> None:
    with lab(tmp_path) as made:
        for place in (made.host, made.gateway, made.guest):
            assert place.run("ip", "route", "show", "default") == ""
