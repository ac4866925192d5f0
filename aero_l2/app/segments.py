"""Everything a tunnel's segment is made of, from the settings."""

from __future__ import annotations

from ipaddress import IPv4Address

from aero_l2.config import Settings
from aero_l2.observe.audit.log import AuditLog
from aero_l2.observe.metrics import Metrics
from aero_l2.policy.domains import DomainLists
from aero_l2.policy.egress import EgressPolicy
from aero_l2.services.dns.resolver import Resolver, ResolverSettings
from aero_l2.session.segment import SegmentMaker
from aero_l2.session.spec import segment_spec
from netns.client import NetdClient


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
        )
    )
    spec = segment_spec(settings)
    return SegmentMaker(netd, spec, settings.forwards, policy, resolver, metrics, dns_connections, audit)
