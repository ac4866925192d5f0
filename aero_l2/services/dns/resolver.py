"""The process's resolver: what all tunnels share – settings, upstreams, and the number of open questions."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from os import PathLike
from typing import Final

import dns.exception
import dns.name
import dns.rcode
import dns.rdatatype
import structlog
from dns.message import Message, QueryMessage

from aero_l2.config.nameservers import NameServer
from aero_l2.policy.domains import DomainLists
from aero_l2.services.dns.answers import AnswerRules, grow_older, relay, static
from aero_l2.services.dns.cache import AnswerCache, CacheRoom, key_of
from aero_l2.services.dns.counts import ResolverCounts
from aero_l2.services.dns.flights import Flights
from aero_l2.services.dns.local_names import denial, owner_of_denial
from aero_l2.services.dns.message import Query, reply_to
from aero_l2.services.dns.nameservers import GivenServers, HostServers, Servers
from aero_l2.services.dns.pace import SHARED_BYTE_COST, Pace
from aero_l2.services.dns.silence import Silence
from aero_l2.services.dns.upstream import Upstreams

_log = structlog.stdlib.get_logger(__name__)

RESOLV_CONF: Final = "/etc/resolv.conf"
# Questions that a stub resolver has open at a time: a name or two, of two types each.
_FEW: Final = 4


@dataclass(frozen=True, slots=True)
class ResolverSettings:
    """Limits and the operator's own names.

    `lookup_timeout_s` for a whole lookup, in seconds; TTLs in seconds (never below 1 in an answer);
    `max_pending`: questions waiting for an upstream in the whole process, 0 = no limit; `static_names` are
    answered as given, ahead of every filter; `servers`: the upstreams, empty = those of resolv.conf.
    `private_names`: names of the operator's network (`local_names`) are asked for like others;
    `max_cache_entries`: answers kept for all tunnels together, 0 = no limit but that of bytes; `domains`: the
    names that may be looked up.
    """

    lookup_timeout_s: float = 2.0
    default_ttl: int = 60
    max_ttl: int = 300
    max_pending: int = 1024
    static_names: Mapping[str, tuple[IPv4Address, ...]] = field(default_factory=dict)
    servers: tuple[NameServer, ...] = ()
    private_names: bool = False
    max_cache_entries: int = 10_000
    domains: DomainLists = field(default_factory=DomainLists)


class Resolver:
    """Answers queries of all tunnels. Use on one event loop.

    `pending`: questions that wait for an upstream now.
    """

    def __init__(
        self,
        settings: ResolverSettings | None = None,
        resolv_conf: str | PathLike[str] = RESOLV_CONF,
        counts: ResolverCounts | None = None,
    ) -> None:
        """Take the upstreams of `settings`, else follow `resolv_conf`.

        While none is known every lookup is SERVFAIL, and one log line says why.
        Raises ValueError for a static name that is not a domain name.
        """
        self._settings = settings or ResolverSettings()
        self._names = {_name(text): found for text, found in self._settings.static_names.items()}
        given = self._settings.servers
        self._servers: Servers = GivenServers(given) if given else HostServers(resolv_conf)
        self._counts = counts or ResolverCounts()
        self._upstreams = Upstreams(self._settings.lookup_timeout_s, self._counts)
        self._silence = Silence()
        self._room = CacheRoom(self._settings.max_cache_entries)
        self.pending = 0

    def admits(self, waiting: int) -> bool:
        """Whether a tunnel with `waiting` open questions may have one more.

        It may have half of what is free, so that many tunnels that ask too much together still leave room for
        one that does not; a few it may have as long as anything is free.
        """
        if not self._settings.max_pending:
            return True
        free = self._settings.max_pending - self.pending
        return free > 0 and waiting < max(_FEW, free // 2)

    def turned_away(self) -> None:
        """A question was not asked because `admits`, or its tunnel's own limit, says so."""
        self._counts.failed("too_many")

    def denial_of(self, query: Query) -> QueryMessage | None:
        """Answer a name that policy denies; None if it may be resolved."""
        if query.name in self._names:
            return None
        if self._settings.domains.denies(query.name.labels[:-1]):
            return denial(query, dns.name.root)
        if self._settings.private_names:
            return None
        owner = owner_of_denial(query.name, query.rdtype)
        return None if owner is None else denial(query, owner)

    def at_once(self, query: Query) -> QueryMessage | None:
        """Answer what needs no upstream: static names, AAAA while guests have no IPv6; else None."""
        addresses = self._names.get(query.name)
        if addresses is not None:
            ttl = max(1, min(self._settings.default_ttl, self._settings.max_ttl))
            return static(query, addresses, ttl)
        if query.rdtype == dns.rdatatype.AAAA:
            return reply_to(query)
        return None

    def new_cache(self) -> AnswerCache:
        """A tunnel's cache, to be closed with it."""
        return AnswerCache(self._room, self._settings.max_ttl)

    def remembered(
        self, query: Query, denies: Callable[[IPv4Address], bool], cache: AnswerCache
    ) -> QueryMessage | None:
        """Answer from `cache`, by the same rules as a fresh answer; None if it is not there."""
        found = cache.get(query, self._servers.current())
        if found is None:
            return None
        self._counts.looked_up("hit")
        reply = relay(query, found.message, AnswerRules(denies, self._settings.max_ttl))
        grow_older(reply, found.age)
        return reply

    async def resolve(
        self, query: Query, denies: Callable[[IPv4Address], bool], cache: AnswerCache, flights: Flights
    ) -> QueryMessage:
        """Ask the upstreams; SERVFAIL if none answers in time, if there are none, or if too many wait.

        A question that is in `flights` is not asked again. What may be kept of the answer is in `cache`
        afterwards.
        """
        key = key_of(query)
        is_shared = key in flights
        self._counts.looked_up("shared" if is_shared else "miss")
        found = await flights.share(key, lambda: self._ask(query, cache, flights.pace))
        if found is None:
            return reply_to(query, dns.rcode.SERVFAIL)
        if is_shared and found.wire is not None:
            await flights.pace.take(SHARED_BYTE_COST * len(found.wire))
        return relay(query, found, AnswerRules(denies, self._settings.max_ttl))

    async def _ask(self, query: Query, cache: AnswerCache, pace: Pace) -> Message | None:
        servers = self._servers.current()
        if not servers or not self.admits(0):
            self._counts.failed("too_many" if servers else "no_server")
            return None
        with self._counted():
            found = await self._upstreams.ask(query, servers, pace)
        if (line := self._silence.note(time.monotonic(), answered=found is not None)) is not None:
            _log.warning(line, servers=[str(server) for server in servers])
        if found is not None:
            cache.put(query, found, servers)
        return found

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.pending += 1
        try:
            yield
        finally:
            self.pending -= 1


def _name(text: str) -> dns.name.Name:
    try:
        return dns.name.from_text(text.strip().strip("."))
    except dns.exception.DNSException as error:
        raise ValueError(f"not a domain name: {text!r} ({error})") from error
