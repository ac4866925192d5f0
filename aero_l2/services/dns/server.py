"""The DNS server of a tunnel: UDP and TCP port 53 of its gateway, and `Responder` behind both."""

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from typing import NamedTuple

from aero_l2.policy.egress import EgressPolicy
from aero_l2.quota.waiting import Waiting
from aero_l2.services.dns.connection import Connection
from aero_l2.services.dns.openings import OpenedAddresses
from aero_l2.services.dns.resolver import Resolver
from aero_l2.services.dns.responder import MAX_PENDING_PER_TUNNEL, Answered, DnsMetrics, Responder
from aero_l2.services.dns.tcp import IDLE_SECONDS, TcpListener
from aero_l2.services.dns.udp import UdpListener


class DnsSockets(NamedTuple):
    """Descriptors of a bound UDP and a listening TCP socket, both non-blocking."""

    udp: int
    tcp: int


class DnsServer:
    """Serves one tunnel's DNS on sockets that somebody else owns.

    `udp_fd`: bound to port 53 of the gateway's address; `tcp_fd`: listening there; both non-blocking,
    borrowed between `start` and `close` and never closed here. Nothing raises for what a guest or the network
    does; `errors` counts what the kernel refused.
    """

    def __init__(
        self,
        udp_fd: int,
        tcp_fd: int,
        resolver: Resolver,
        policy: EgressPolicy,
        host_addresses: Callable[[], frozenset[IPv4Address]],
        metrics: DnsMetrics,
        *,
        max_pending: int = MAX_PENDING_PER_TUNNEL,
        tcp_idle_s: float = IDLE_SECONDS,
        opened: OpenedAddresses | None = None,
        redirected: Sequence[DnsSockets] = (),
        pool: Waiting[Connection] | None = None,
        answered: Callable[[Answered], None] | None = None,
    ) -> None:
        """Prepare only.

        `opened`: where answers have to open their addresses; `redirected`: more sockets, for what the guest
        sent to other servers; `pool`: bounds the TCP connections of all tunnels together; `answered`: see
        `Responder`.
        """
        self._responder = Responder(resolver, policy, host_addresses, metrics, max_pending, opened, answered)
        pairs = (DnsSockets(udp_fd, tcp_fd), *redirected)
        self._udp = [UdpListener(pair.udp, self._responder) for pair in pairs]
        self._tcp = [TcpListener(pair.tcp, self._responder, tcp_idle_s, pool) for pair in pairs]

    @property
    def errors(self) -> int:
        """Datagrams and connections that the kernel refused to take or to give."""
        return sum(udp.errors for udp in self._udp) + sum(tcp.errors for tcp in self._tcp)

    @property
    def pending(self) -> int:
        """Queries of this tunnel that wait now: for an upstream, or for their addresses to be opened."""
        return self._responder.pending

    @property
    def connections(self) -> int:
        """Open TCP connections of this tunnel."""
        return sum(listener.connections for listener in self._tcp)

    def start(self) -> None:
        """Begin to answer, on the running loop; once. OSError if a descriptor is not an open socket."""
        for udp in self._udp:
            udp.start()
        for tcp in self._tcp:
            tcp.start()

    async def close(self) -> None:
        """Stop, give the descriptors back still open, and wait until no task and no connection is left.

        May be called twice; everything is already stopped if the waiting is cancelled.
        """
        for udp in self._udp:
            udp.stop()
        self._responder.stop()
        for tcp in self._tcp:
            tcp.stop()
        await self._responder.wait_stopped()
        for tcp in self._tcp:
            await tcp.wait_stopped()
