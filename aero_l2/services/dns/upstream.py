"""Asking the upstream resolvers.

The first is asked first; each further one joins when the ones before it are late or have failed, and the
first good answer wins. So a dead resolver costs a fraction of the timeout and a slow one is not cut short.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.rcode
from dns.message import Message
from dns.nameserver import Nameserver

from aero_l2.services.dns.counts import ResolverCounts, UpstreamFailure
from aero_l2.services.dns.message import MAX_UDP_BYTES, Query
from aero_l2.services.dns.pace import Pace
from aero_l2.services.dns.sockets import AnswerFlood, TooCostly, UpstreamBackend
from aero_l2.services.dns.sourceports import SourcePorts
from aero_l2.tasks import spawn

_Exchange = asyncio.Task[Message | None]
# Answers that speak of the server, not of the name: another server may know better.
_SERVER_TROUBLE: Final = (dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP, dns.rcode.FORMERR)


def request_for(query: Query) -> dns.message.QueryMessage:
    """Make the question as we ask it: an id of our own, recursion always, EDNS as the guest has it.

    EDNS options of the guest stay here (client subnet, cookies). Without RD a guest could look into the
    resolver's cache.
    """
    passed = dns.flags.Flag(query.flags & (dns.flags.CD | dns.flags.AD))
    return dns.message.make_query(
        query.name,
        query.rdtype,
        use_edns=0 if query.edns else False,
        want_dnssec=query.dnssec_ok,
        payload=MAX_UDP_BYTES if query.edns else None,
        flags=int(dns.flags.RD | passed),
    )


class Upstreams:
    """Asks resolvers as the module says."""

    def __init__(self, timeout_s: float, counts: ResolverCounts | None = None) -> None:
        """`timeout_s` bounds a whole lookup, whatever the number of resolvers."""
        self._timeout = timeout_s
        self._counts = counts or ResolverCounts()
        self._ports = SourcePorts()

    async def ask(self, query: Query, servers: Sequence[Nameserver], pace: Pace) -> Message | None:
        """Resolve; None if nobody answered in time. Leaves no task and no socket, cancelled or not.

        `pace`: when an answer may be read.
        """
        running: set[_Exchange] = set()
        try:
            async with asyncio.timeout(self._timeout):
                return await self._race(query, servers, UpstreamBackend(pace, self._ports), running)
        except TimeoutError:
            for _ in filter(asyncio.Task.cancelled, running):
                self._counts.failed("timeout")
            return None

    async def _race(
        self,
        query: Query,
        servers: Sequence[Nameserver],
        backend: UpstreamBackend,
        running: set[_Exchange],
    ) -> Message | None:
        """`running`: filled with the exchanges that have not ended, cancelled when this returns."""
        waiting = list(servers)
        stagger = self._timeout / (len(waiting) + 1)
        second_best: Message | None = None
        try:
            while waiting or running:
                if waiting:
                    server = waiting.pop(0)
                    running.add(spawn(self._exchange(server, query, backend), name=f"dns {server}"))
                done, _ = await asyncio.wait(
                    running, timeout=stagger if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                running -= done
                for answer in filter(None, (task.result() for task in done)):
                    if answer.rcode() not in _SERVER_TROUBLE:
                        return answer
                    second_best = second_best or answer
            return second_best
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _exchange(self, server: Nameserver, query: Query, backend: UpstreamBackend) -> Message | None:
        """Ask one resolver, over TCP where UDP does not do; None if that fails."""
        request, begun = request_for(query), time.monotonic()
        try:
            try:
                answer = await self._query(server, request, backend, tcp=False)
            except (dns.message.Truncated, AnswerFlood, TooCostly):  # over UDP it may be anybody's
                answer = await self._query(server, request, backend, tcp=True)
        except (dns.exception.DNSException, OSError, EOFError) as error:
            self._counts.failed(_cause_of(error))
            return None
        self._counts.answered(time.monotonic() - begun)
        if answer.rcode() in _SERVER_TROUBLE:
            self._counts.failed("rcode")
        return answer

    async def _query(
        self,
        server: Nameserver,
        request: dns.message.QueryMessage,
        backend: UpstreamBackend,
        *,
        tcp: bool,
    ) -> Message:
        return await server.async_query(
            request, self._timeout, source=None, source_port=0, max_size=tcp, backend=backend
        )


def _cause_of(error: Exception) -> UpstreamFailure:
    if isinstance(error, dns.exception.Timeout | TimeoutError):
        return "timeout"
    return "malformed" if isinstance(error, dns.exception.DNSException) else "unreachable"
