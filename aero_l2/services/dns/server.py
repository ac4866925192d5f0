"""The DNS server of a tunnel: UDP and TCP port 53 of its gateway, and `Responder` behind both."""

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address
from typing import Any, Final

from aero_l2.policy.egress import EgressPolicy
from aero_l2.services.dns.message import MAX_QUERY_BYTES
from aero_l2.services.dns.resolver import Resolver
from aero_l2.services.dns.responder import MAX_PENDING_PER_TUNNEL, DnsMetrics, Responder
from aero_l2.services.dns.tcp import IDLE_SECONDS, TcpListener

# A flood takes its turn with every other tunnel on the loop: the more a turn holds, the longer they wait.
_DATAGRAMS_PER_WAKEUP: Final = 4


class DnsServer:
    """Serves one tunnel's DNS on two sockets that somebody else owns.

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
    ) -> None:
        """Prepare only."""
        self._fd = udp_fd
        self._responder = Responder(resolver, policy, host_addresses, metrics, max_pending)
        self._listener = TcpListener(tcp_fd, self._responder, tcp_idle_s)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket: socket.socket | None = None
        self._errors = 0

    @property
    def errors(self) -> int:
        """Datagrams and connections that the kernel refused to take or to give."""
        return self._errors + self._listener.errors

    @property
    def pending(self) -> int:
        """Queries of this tunnel that wait for an upstream now."""
        return self._responder.pending

    @property
    def connections(self) -> int:
        """Open TCP connections of this tunnel."""
        return self._listener.connections

    def start(self) -> None:
        """Begin to answer, on the running loop; once. OSError if a descriptor is not an open socket."""
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(fileno=self._fd)
        self._loop.add_reader(self._fd, self._on_readable)
        self._listener.start()

    async def close(self) -> None:
        """Stop, give the descriptors back still open, and wait until no task and no connection is left.

        May be called twice; everything is already stopped if the waiting is cancelled.
        """
        if self._socket is not None and self._loop is not None:
            self._loop.remove_reader(self._fd)
            self._socket.detach()
            self._socket = None
        self._responder.stop()
        self._listener.stop()
        await self._responder.wait_stopped()
        await self._listener.wait_stopped()

    def _on_readable(self) -> None:
        for _ in range(_DATAGRAMS_PER_WAKEUP):
            if self._socket is None:
                return
            try:
                # One byte more than a query may have: a longer one is seen as such.
                wire, peer = self._socket.recvfrom(MAX_QUERY_BYTES + 1)
            except BlockingIOError:
                return
            except OSError:
                self._errors += 1
                return
            self._responder.handle(wire, partial(self._send, peer), tcp=False)

    def _send(self, peer: Any, wire: bytes | None) -> None:
        if wire is None or self._socket is None:
            return
        try:
            self._socket.sendto(wire, peer)
        except OSError:
            self._errors += 1
