"""What a tunnel's segment is made of, and the audit log that hears of it, from the settings."""

from __future__ import annotations

from ipaddress import IPv4Address

from aero_l2.config import Settings
from aero_l2.observe.audit.log import AuditLog, open_log
from aero_l2.observe.metrics import Metrics
from aero_l2.policy.domains import DomainLists
from aero_l2.policy.egress import EgressPolicy
from aero_l2.services.dns.counts import CacheResult, ResolverCounts, UpstreamFailure
from aero_l2.services.dns.resolver import Resolver, ResolverSettings
from aero_l2.session.segment import SegmentMaker
from aero_l2.session.spec import segment_spec
from netns.client import NetdClient


class ResolverCounters(ResolverCounts):
    """What the resolver does, as metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def looked_up(self, result: CacheResult) -> None:
        """See `ResolverCounts`."""
        self._metrics.dns_cache_lookups[result].inc()

    def answered(self, seconds: float) -> None:
        """See `ResolverCounts`."""
        self._metrics.dns_upstream_seconds.observe(seconds)

    def failed(self, cause: UpstreamFailure) -> None:
        """See `ResolverCounts`."""
        self._metrics.dns_upstream_failures[cause].inc()


def segment_maker(
    settings: Settings,
    netd: NetdClient,
    metrics: Metrics,
    dns_connections: int,
    audit: AuditLog | None = None,
) -> SegmentMaker:
    """Everything a tunnel's segment is made of, from the settings."""
    policy = EgressPolicy.of(settings)
    names: dict[str, tuple[IPv4Address, ...]] = {}
    for name, address in settings.dns_a:
        names[name] = (*names.get(name, ()), address)
    resolver = Resolver(
        ResolverSettings(
            lookup_timeout_s=settings.dns_lookup_timeout_ms / 1000,
            default_ttl=settings.dns_default_ttl_secs,
            max_ttl=settings.dns_max_ttl_secs,
            max_pending=settings.max_pending_dns,
            static_names=names,
            servers=settings.dns_servers,
            private_names=settings.allow_private_ips,
            max_cache_entries=settings.max_dns_cache_entries,
            domains=DomainLists.of(settings),
        ),
        counts=ResolverCounters(metrics),
    )
    metrics.dns_pending.set_function(lambda: resolver.pending)
    spec = segment_spec(settings)
    return SegmentMaker(netd, spec, settings.forwards, policy, resolver, metrics, dns_connections, audit)


def open_audit_log(settings: Settings, metrics: Metrics) -> AuditLog | None:
    """The audit log, None where there is to be none. Raises Unusable."""
    return open_log(
        settings.audit_log or "",
        settings.audit_max_bytes,
        settings.audit_max_files,
        metrics,
        has_queries=settings.audit_dns,
        version=settings.version,
    )
