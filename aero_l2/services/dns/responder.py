"""One tunnel's queries: judged, answered at once or handed to the resolver, counted and limited.

UDP and TCP both end here; whoever hands a query in gets exactly one call back.
"""

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final, NamedTuple, Protocol

import dns.exception
import dns.rcode
from dns.message import QueryMessage

from aero_l2.policy.egress import EgressPolicy
from aero_l2.services.dns.flights import Flights
from aero_l2.services.dns.message import Query, Refusal, encode, read, reply_to
from aero_l2.services.dns.openings import OpenedAddresses, openings
from aero_l2.services.dns.pace import KEPT_BYTE_COST
from aero_l2.services.dns.resolver import Resolver
from aero_l2.tasks import spawn

# Questions of one tunnel, however many are free in the process.
MAX_PENDING_PER_TUNNEL: Final = 128

# Gets the answer, or None where the server stays silent.
Deliver = Callable[[bytes | None], None]


class Answered(NamedTuple):
    """A query that is about to be answered. query: None where it was none that could be read. reply: None
    where nothing is in it but the rcode."""

    query: Query | None
    rcode: dns.rcode.Rcode
    reply: QueryMessage | None = None
    denied: bool = False


class DnsMetrics(Protocol):
    """What the service counts; the caller keeps the numbers."""

    def dns_query(self) -> None:
        """Count a query (`l2_dns_queries_total`): every one that gets an answer."""

    def dns_failure(self) -> None:
        """Count an answer that was neither NOERROR nor by policy (`l2_dns_fail_total`)."""

    def dns_denied(self) -> None:
        """Count a name that policy denies (`l2_policy_denied_total`)."""

    def dns_answer(self, rcode: int) -> None:
        """Count an answer by its response code (`aero_l2_dns_answers_total`)."""


class Responder:
    """Answers one tunnel's queries.

    `host_addresses` is asked for every answer, since a host's addresses change.
    """

    def __init__(
        self,
        resolver: Resolver,
        policy: EgressPolicy,
        host_addresses: Callable[[], frozenset[IPv4Address]],
        metrics: DnsMetrics,
        max_pending: int = MAX_PENDING_PER_TUNNEL,
        opened: OpenedAddresses | None = None,
        answered: Callable[[Answered], None] | None = None,
    ) -> None:
        """`max_pending`: questions of this tunnel that may wait.

        `opened`: where a list allows names, what brings the addresses of an answer within reach before the
        guest gets it. `answered`: told of every answer, just before it goes.
        """
        self._resolver = resolver
        self._policy = policy
        self._host_addresses = host_addresses
        self._metrics = metrics
        self._max_pending = max_pending
        self._opened = opened
        self._answered = answered
        self._cache = resolver.new_cache()
        self._flights = Flights()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def pending(self) -> int:
        """Questions of this tunnel that wait now: for an upstream, or for their addresses to be opened."""
        return len(self._tasks)

    def handle(self, wire: bytes, deliver: Deliver, *, tcp: bool) -> None:
        """Answer one message through `deliver`, at once or later; not at all after `close`."""
        if self._closed:
            return
        query = read(wire)
        if query is None:
            deliver(None)
            return
        self._metrics.dns_query()
        if isinstance(query, Refusal):
            self._metrics.dns_failure()
            self._metrics.dns_answer(query.wire[3] & 0xF)  # RFC 1035 section 4.1.1
            self._tell(None, query.rcode)
            deliver(query.wire)
            return
        denial = self._resolver.denial_of(query)
        if denial is not None:
            self._metrics.dns_denied()
            self._metrics.dns_answer(denial.rcode())
            self._tell(query, denial.rcode(), denied=True)
            deliver(encode(denial, query, tcp=tcp))
            return
        reply = self._resolver.at_once(query)
        if reply is None or not self._is_open(query, reply):
            if self._may_wait():
                task = spawn(self._resolve(query, reply, deliver, tcp=tcp), name="dns query")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                return
            self._resolver.turned_away()
            reply = reply_to(query, dns.rcode.SERVFAIL)
        self._finish(query, reply, deliver, tcp=tcp)

    def stop(self) -> None:
        """Take no more queries and cancel the waiting ones; `wait_stopped` awaits their end."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        self._cache.close()

    async def wait_stopped(self) -> None:
        """Wait until no task is left."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _may_wait(self) -> bool:
        return self.pending < self._max_pending and self._resolver.admits(self.pending)

    async def _resolve(
        self, query: Query, reply: QueryMessage | None, deliver: Deliver, *, tcp: bool
    ) -> None:
        """Get the answer, from the cache if it is there, and open what it gives: the guest may dial now."""
        if reply is None:
            if length := self._cache.length(query):
                await self._flights.pace.take(KEPT_BYTE_COST * length)
            reply = self._resolver.remembered(query, self._denies, self._cache)
        if reply is None:
            reply = await self._resolver.resolve(query, self._denies, self._cache, self._flights)
        if not self._is_open(query, reply) and not await self._open(query, reply):
            reply = reply_to(query, dns.rcode.SERVFAIL)
        self._finish(query, reply, deliver, tcp=tcp)

    def _is_open(self, query: Query, reply: QueryMessage) -> bool:
        """Whether the guest can reach what the answer gives, as far as that is DNS's business."""
        return self._opened is None or self._opened.holds(openings(reply, query.name))

    async def _open(self, query: Query, reply: QueryMessage) -> bool:
        return self._opened is None or await self._opened.open(openings(reply, query.name))

    def _denies(self, address: IPv4Address) -> bool:
        return self._policy.denies_address(address, self._host_addresses()) is not None

    def _finish(self, query: Query, reply: QueryMessage, deliver: Deliver, *, tcp: bool) -> None:
        try:
            wire = encode(reply, query, tcp=tcp)
        except dns.exception.DNSException:
            # An upstream's record that reads but cannot be written: no answer of ours.
            reply = reply_to(query, dns.rcode.SERVFAIL)
            wire = encode(reply, query, tcp=tcp)
        if reply.rcode() != dns.rcode.NOERROR:
            self._metrics.dns_failure()
        self._metrics.dns_answer(reply.rcode())
        self._tell(query, reply.rcode(), reply)
        deliver(wire)

    def _tell(
        self,
        query: Query | None,
        rcode: dns.rcode.Rcode,
        reply: QueryMessage | None = None,
        *,
        denied: bool = False,
    ) -> None:
        if self._answered is not None:
            self._answered(Answered(query, rcode, reply, denied))
