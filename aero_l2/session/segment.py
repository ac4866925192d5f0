"""A tunnel's segment: its namespace from netd, DHCP and DNS inside it, and the watch over its NAT process.

Acquired and released as one resource; the only place besides the wiring that knows `netns`.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from typing import Final

import structlog

from aero_l2.config.forwards import ForwardRule
from aero_l2.errors import SegmentUnavailable
from aero_l2.observe.metrics import Metrics
from aero_l2.observe.metrics.dns import RCODES
from aero_l2.observe.processes import Processes
from aero_l2.policy.egress import EgressPolicy
from aero_l2.quota.waiting import Waiting
from aero_l2.services.dhcp.server import DhcpServer
from aero_l2.services.dns.connection import Connection
from aero_l2.services.dns.openings import OpenedAddresses
from aero_l2.services.dns.resolver import Resolver
from aero_l2.services.dns.server import DnsServer, DnsSockets
from aero_l2.session.counting import Collector, Reading
from aero_l2.session.ports import Segment
from aero_l2.session.readiness import TRIAL_SESSION
from aero_l2.session.setupclock import SetupClock
from aero_l2.tasks import spawn
from netns.client import NetdClient
from netns.errors import NetnsError
from netns.flows import FlowWatch, Resync
from netns.handles import SegmentHandles
from netns.spec import Forward, SegmentSpec
from netns.vitals import pid_of

_log = structlog.get_logger("aero_l2.session")
_LOOKUP_TIMEOUT_S: Final = 5.0
_STDERR_KEPT: Final = 2000
_CHATTER: Final = ("sent tapfd=", "received tapfd=", "Starting slirp", "* ", "WARNING: ")


class SegmentMaker:
    """Makes segments. All of them share policy, forwards, resolver and limits.

    Args:
        netd: makes the namespaces.
        spec: what every namespace has to be; forwards are added to it.
        forwards: their host names are looked up anew for each segment.
        dns_connections: TCP connections to the DNS of all segments together, at most.
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
    ) -> None:
        self._netd = netd
        self._spec = spec
        self._forwards = tuple(forwards)
        self._policy = policy
        self._resolver = resolver
        self._metrics = metrics
        self._collector = Collector(metrics)
        self.processes = Processes(metrics)
        self._resync = Resync(spawn)
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
            handles.relieved = partial(self._relieved, session_id)
            stack.callback(self._netd.release, handles)
            clock.netd_took(handles.took, handles.nat_ready)
            await stack.enter_async_context(self._collector.following(lambda: self._read(handles)))
            try:
                stack.enter_context(self.processes.nat(pid_of(handles.process)))
                watch = self._furnish(stack, handles)
            except OSError as error:
                raise SegmentUnavailable(f"cannot serve the tunnel's network: {error}") from error
            clock.step("services")
            yield LiveSegment(handles.tap, watch.failed, handles.nat_ready)

    def _furnish(self, stack: AsyncExitStack, handles: SegmentHandles) -> NatWatch:
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
            DnsCounters(self._metrics),
            opened=OpenedAddresses(partial(self._open_addresses, handles)) if self._spec.only_named else None,
            redirected=_redirected(handles),
            pool=self._dns_connections,
        )
        stack.push_async_callback(dns.close)
        dns.start()
        flows = FlowWatch(handles.flows, self._flows_changed, lambda: self._netd.flows(handles), self._resync)
        stack.callback(flows.close)
        flows.start()
        watch = NatWatch(handles)
        stack.callback(watch.close)
        watch.start()
        return watch

    def _flows_changed(self, tcp: int, udp: int) -> None:
        self._metrics.tcp_conns_active.inc(tcp)
        self._metrics.udp_flows_active.inc(udp)

    def _relieved(self, session_id: int, connections: int, reason: str) -> None:
        self._metrics.tcp_connections_reset.inc(connections)
        _log.warning("connections reset", session=session_id, connections=connections, reason=reason)

    async def _read(self, handles: SegmentHandles) -> Reading | None:
        """The namespace's counters; None while netd is away or does not know it."""
        try:
            counters = await self._netd.counters(handles)
        except NetnsError:
            return None
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

    def __init__(self, tap: int, failed: asyncio.Future[str], nat_ready: asyncio.Future[None]) -> None:
        self.tap = tap
        self.failed = failed
        self.nat_ready = nat_ready


class DnsCounters:
    """DNS queries and failures as the process counts them."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def dns_query(self) -> None:
        """One query that gets an answer."""
        self._metrics.dns_queries.inc()

    def dns_failure(self) -> None:
        """One answer that was neither NOERROR nor by policy."""
        self._metrics.dns_fail.inc()

    def dns_denied(self) -> None:
        """One name that policy denies."""
        self._metrics.policy_denied["query"].inc()

    def dns_answer(self, rcode: int) -> None:
        """One answer with this response code."""
        self._metrics.dns_answers[RCODES[rcode] if rcode < len(RCODES) else "other"].inc()


class NatWatch:
    """Tells when a NAT process ends, with the last thing it said.

    `failed` resolves within the same turn of the loop in which the kernel reports the end.
    """

    def __init__(self, handles: SegmentHandles) -> None:
        self._handles = handles
        self._loop = asyncio.get_running_loop()
        self._said = b""
        self.failed: asyncio.Future[str] = self._loop.create_future()

    def start(self) -> None:
        """Begin to watch."""
        self._loop.add_reader(self._handles.process, self._ended)
        self._loop.add_reader(self._handles.stderr, self._spoke)
        self._handles.nat_sick.add_done_callback(self._sick)

    def close(self) -> None:
        """Watch no more; the descriptors stay open."""
        self._loop.remove_reader(self._handles.process)
        self._loop.remove_reader(self._handles.stderr)
        self._handles.nat_sick.remove_done_callback(self._sick)

    def _sick(self, about: asyncio.Future[str]) -> None:
        self._failed(f"the NAT process (slirp4netns) is given up: {about.result()}")

    def _spoke(self) -> None:
        """Keep the end of what it says; one read a turn, so that chatter costs others nothing."""
        try:
            said = os.read(self._handles.stderr, 65536)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if said:
            self._said = (self._said + said)[-_STDERR_KEPT:]
        else:
            self._loop.remove_reader(self._handles.stderr)

    def _ended(self) -> None:
        self._spoke()
        self._failed(f"the NAT process (slirp4netns) ended{_last_words(self._said)}")

    def _failed(self, why: str) -> None:
        self.close()
        if not self.failed.done():
            self.failed.set_result(why)


def _redirected(handles: SegmentHandles) -> list[DnsSockets]:
    """The sockets for DNS to other servers, where that is redirected."""
    if handles.redirected_udp < 0:
        return []
    return [DnsSockets(handles.redirected_udp, handles.redirected_tcp)]


def _last_words(said: bytes) -> str:
    """The last line that is not its ordinary chatter, printable, as ``: …``."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines()]
    spoken = [line for line in lines if line and not line.startswith(_CHATTER)]
    if not spoken:
        return ""
    return ": " + "".join(c for c in spoken[-1][:200] if c.isprintable())


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
