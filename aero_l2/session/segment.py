"""A tunnel's segment: its namespace from netd, DHCP and DNS inside it, and the watch over its NAT process.

Acquired and released as one resource; the only place besides the wiring that knows `netns`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from typing import Final

import structlog

from aero_l2.config.forwards import ForwardRule
from aero_l2.errors import SegmentUnavailable
from aero_l2.observe.audit.log import AuditLog
from aero_l2.observe.limit import LimitedLog
from aero_l2.observe.metrics import Metrics
from aero_l2.observe.processes import Processes
from aero_l2.policy.egress import EgressPolicy
from aero_l2.quota.waiting import Waiting
from aero_l2.services.dhcp.server import DhcpServer
from aero_l2.services.dns.connection import Connection
from aero_l2.services.dns.openings import OpenedAddresses
from aero_l2.services.dns.resolver import Resolver
from aero_l2.services.dns.server import DnsServer, DnsSockets
from aero_l2.session.auditing import Auditing
from aero_l2.session.counting import Collector, Reading, SegmentCounts, Tally
from aero_l2.session.natwatch import NatWatch
from aero_l2.session.ports import Segment
from aero_l2.session.queries import DnsCounters, tell
from aero_l2.session.readiness import TRIAL_SESSION
from aero_l2.session.setupclock import SetupClock
from aero_l2.tasks import spawn, subject
from netns.client import NetdClient
from netns.errors import NetnsError
from netns.flows import FlowWatch, Resync
from netns.handles import SegmentHandles
from netns.spec import Forward, SegmentSpec
from netns.vitals import pid_of

_log = structlog.get_logger(component="session")
_LOOKUP_TIMEOUT_S: Final = 5.0


class SegmentMaker:
    """Makes segments. All of them share policy, forwards, resolver and limits.

    Args:
        netd: makes the namespaces.
        spec: what every namespace has to be; forwards are added to it.
        forwards: their host names are looked up anew for each segment.
        dns_connections: TCP connections to the DNS of all segments together, at most.
        audit: hears of flows, refused packets and queries, if there is one.
    """

    def __init__(
        self,
        netd: NetdClient,
        spec: SegmentSpec,
        forwards: Sequence[ForwardRule],
        policy: EgressPolicy,
        resolver: Resolver,
        metrics: Metrics,
        dns_connections: int = 4096,
        audit: AuditLog | None = None,
    ) -> None:
        self._netd = netd
        self._spec = replace(spec, audit=audit is not None)
        self._audit = audit
        self._forwards = tuple(forwards)
        self._policy = policy
        self._resolver = resolver
        self._metrics = metrics
        self._collector = Collector(metrics)
        self.processes = Processes(metrics)
        self._resync = Resync(spawn)
        self._log = LimitedLog(_log)
        self._dns_connections: Waiting[Connection] = Waiting(dns_connections)

    def open(self, session_id: int) -> AbstractAsyncContextManager[Segment]:
        """A `SegmentOpener`. Entering raises SegmentUnavailable; leaving undoes everything."""
        return self._open(session_id)

    @asynccontextmanager
    async def _open(self, session_id: int) -> AsyncIterator[Segment]:
        clock = SetupClock(self._metrics, is_counted=session_id != TRIAL_SESSION)
        async with AsyncExitStack() as stack:
            try:
                spec = await self._complete_spec()
                clock.step("lookup")
                handles = await self._netd.create(spec, session_id)
                clock.step("netd")
            except NetnsError as error:
                raise SegmentUnavailable(str(error)) from error
            handles.relieved = partial(self._relieved, {"session": session_id, **subject()})
            stack.callback(self._netd.release, handles)
            clock.netd_took(handles.took, handles.nat_ready)
            auditing = self._auditing(session_id, handles, spec)
            if auditing is not None:
                stack.callback(auditing.check)
            read = partial(self._read, handles, auditing)
            tally = await stack.enter_async_context(self._collector.following(read))
            counters = DnsCounters(self._metrics)
            try:
                stack.enter_context(self.processes.nat(pid_of(handles.process)))
                watch, flows = self._furnish(stack, handles, counters, auditing)
            except OSError as error:
                raise SegmentUnavailable(f"cannot serve the tunnel's network: {error}") from error
            clock.step("services")
            yield LiveSegment(handles, watch.failed, tally, flows, counters)

    def _auditing(self, session_id: int, handles: SegmentHandles, spec: SegmentSpec) -> Auditing | None:
        said = self._audit.of(session_id) if self._audit is not None else None
        return Auditing(said, self._netd, handles, spec.forwards) if said is not None else None

    def _furnish(
        self,
        stack: AsyncExitStack,
        handles: SegmentHandles,
        counters: DnsCounters,
        auditing: Auditing | None,
    ) -> tuple[NatWatch, FlowWatch]:
        """Start what lives inside, each to be ended by ``stack``. Raises OSError."""
        dhcp = DhcpServer(handles.dhcp)
        stack.callback(dhcp.close)
        dhcp.start()
        dns = DnsServer(
            handles.dns_udp,
            handles.dns_tcp,
            self._resolver,
            self._policy,
            lambda: self._netd.host_addresses,
            counters,
            opened=OpenedAddresses(partial(self._open_addresses, handles)) if self._spec.only_named else None,
            redirected=_redirected(handles),
            pool=self._dns_connections,
            answered=partial(tell, auditing.audit) if auditing is not None else None,
        )
        stack.push_async_callback(dns.close)
        dns.start()
        ask = partial(self._netd.flows, handles) if auditing is None else auditing.resync
        flows = FlowWatch(handles.flows, self._flows_changed, ask, self._resync, auditing)
        stack.callback(flows.close)
        flows.start()
        if auditing is not None:
            stack.push_async_callback(auditing.finish, flows)
            auditing.start()
        watch = NatWatch(handles)
        stack.callback(watch.close)
        watch.start()
        return watch, flows

    def _flows_changed(self, tcp: int, udp: int) -> None:
        self._metrics.tcp_conns_active.inc(tcp)
        self._metrics.udp_flows_active.inc(udp)

    def _relieved(self, who: Mapping[str, object], connections: int, reason: str) -> None:
        self._metrics.tcp_connections_reset.inc(connections)
        self._log.write("warning", "connections reset", reason, kind="reason", **who, connections=connections)

    async def _read(self, handles: SegmentHandles, auditing: Auditing | None) -> Reading | None:
        """The namespace's counters; None while netd is away or does not know it."""
        try:
            counters = await self._netd.counters(handles)
        except NetnsError:
            return None
        if counters is not None and auditing is not None:
            auditing.counted(counters)
        return None if counters is None else Reading(counters)

    async def _open_addresses(
        self, handles: SegmentHandles, openings: Sequence[tuple[IPv4Address, int]]
    ) -> bool:
        """Bring addresses within the guest's reach; False while netd is away or cannot."""
        try:
            return await self._netd.open_addresses(handles, openings)
        except NetnsError:
            return False

    async def _complete_spec(self) -> SegmentSpec:
        if not self._forwards:
            return self._spec
        return replace(self._spec, forwards=tuple([await _forward(rule) for rule in self._forwards]))


class LiveSegment:
    """See `aero_l2.session.ports.Segment`."""

    def __init__(
        self,
        handles: SegmentHandles,
        failed: asyncio.Future[str],
        tally: Tally,
        flows: FlowWatch,
        dns: DnsCounters,
    ) -> None:
        self.tap = handles.tap
        self.failed = failed
        self.nat_ready = handles.nat_ready
        self._tally = tally
        self._flows = flows
        self._dns = dns

    def counts(self) -> SegmentCounts:
        """See `Segment`."""
        dns = self._dns
        return SegmentCounts(self._tally.seen, *self._flows.counts(), dns.queries, dns.failures, dns.denied)

    async def refresh(self) -> None:
        """See `Segment`."""
        await self._tally.update_soon()


def _redirected(handles: SegmentHandles) -> list[DnsSockets]:
    """The sockets for DNS to other servers, where that is redirected."""
    if handles.redirected_udp < 0:
        return []
    return [DnsSockets(handles.redirected_udp, handles.redirected_tcp)]


async def _forward(rule: ForwardRule) -> Forward:
    """The rule with its target's address now. Raises SegmentUnavailable naming the setting and the target."""
    target = await _address_of(rule)
    try:
        return Forward(rule.protocol, rule.address, rule.port, target, rule.target_port)
    except NetnsError as error:
        raise SegmentUnavailable(f"{_named(rule)} is {target}: {error}; name 127.0.0.1 or another") from error


def _named(rule: ForwardRule) -> str:
    return f"AERO_L2_{rule.protocol.upper()}_FORWARD: the target {rule.host}"


async def _address_of(rule: ForwardRule) -> IPv4Address:
    """The target's address now, by the host's resolver. Raises SegmentUnavailable."""
    if isinstance(rule.host, IPv4Address):
        return rule.host
    loop = asyncio.get_running_loop()
    try:
        found = await asyncio.wait_for(
            loop.getaddrinfo(rule.host, rule.target_port, family=socket.AF_INET, type=socket.SOCK_STREAM),
            _LOOKUP_TIMEOUT_S,
        )
    except (OSError, TimeoutError) as error:
        reason = str(error) or "no answer in time"
        raise SegmentUnavailable(f"{_named(rule)} cannot be resolved: {reason}") from error
    return IPv4Address(found[0][4][0])
