"""The host's resolvers: which they are, and asking them.

The first is asked first; each further one joins when the ones before it are late or have failed, and the
first good answer wins. So a dead resolver costs a fraction of the timeout and a slow one is not cut short.
"""

import asyncio
from collections.abc import Sequence
from os import PathLike
from typing import Final

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.inet
import dns.message
import dns.rcode
import dns.resolver
from dns.message import Message
from dns.nameserver import Do53Nameserver, Nameserver

from aero_l2.services.dns.message import MAX_UDP_BYTES, Query
from aero_l2.services.dns.sockets import AnswerFlood, TooCostly, UpstreamBackend
from aero_l2.tasks import spawn

# Answers that speak of the server, not of the name: another server may know better.
_SERVER_TROUBLE: Final = (dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP, dns.rcode.FORMERR)


class NoUpstream(Exception):
    """There is no resolver to ask; the text says which file was read and what is wrong with it."""


def read_nameservers(path: str | PathLike[str]) -> tuple[Nameserver, ...]:
    """Read the resolvers of a file in resolv.conf's format (resolv.conf(5)), in its order.

    Raises NoUpstream if the file is missing, cannot be read as such, or names no resolver.
    """
    try:
        found = dns.asyncresolver.Resolver(path).nameservers
    except dns.resolver.NoResolverConfiguration as error:
        raise NoUpstream(f"{path}: {error}") from error
    except (dns.exception.DNSException, ValueError, OSError) as error:
        raise NoUpstream(f"{path}: {error or type(error).__name__}") from error
    # dnspython takes a URL for DNS over HTTPS; resolv.conf knows no such thing.
    addresses = [server for server in found if isinstance(server, str) and dns.inet.is_address(server)]
    if not addresses:
        raise NoUpstream(f"{path}: no nameserver")
    return tuple(Do53Nameserver(address) for address in addresses)


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
    """The resolvers of the host, asked as the module says."""

    def __init__(self, nameservers: Sequence[Nameserver], timeout_s: float) -> None:
        """`timeout_s` bounds a whole lookup, whatever the number of resolvers."""
        self._nameservers = tuple(nameservers)
        self._timeout = timeout_s
        self._backend = UpstreamBackend()

    async def ask(self, query: Query) -> Message | None:
        """Resolve; None if nobody answered in time. Leaves no task and no socket, cancelled or not."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._race(query)
        except TimeoutError:
            return None

    async def _race(self, query: Query) -> Message | None:
        waiting = list(self._nameservers)
        stagger = self._timeout / (len(waiting) + 1)
        running: set[asyncio.Task[Message | None]] = set()
        second_best: Message | None = None
        try:
            while waiting or running:
                if waiting:
                    server = waiting.pop(0)
                    running.add(spawn(self._exchange(server, query), name=f"dns {server}"))
                done, running = await asyncio.wait(
                    running, timeout=stagger if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for answer in filter(None, (task.result() for task in done)):
                    if answer.rcode() not in _SERVER_TROUBLE:
                        return answer
                    second_best = second_best or answer
            return second_best
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _exchange(self, server: Nameserver, query: Query) -> Message | None:
        """Ask one resolver, over TCP where UDP does not do; None if that fails."""
        request = request_for(query)
        try:
            try:
                return await self._query(server, request, tcp=False)
            except (dns.message.Truncated, AnswerFlood, TooCostly):  # over UDP it may be anybody's
                return await self._query(server, request, tcp=True)
        except (dns.exception.DNSException, OSError, EOFError):
            return None

    async def _query(self, server: Nameserver, request: dns.message.QueryMessage, *, tcp: bool) -> Message:
        return await server.async_query(
            request, self._timeout, source=None, source_port=0, max_size=tcp, backend=self._backend
        )
