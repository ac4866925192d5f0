"""Settings → what netd is asked for: the egress policy and the limits of a tunnel's namespace. Pure."""

from __future__ import annotations

from aero_l2.config import Settings
from aero_l2.policy.domains import DomainLists
from aero_l2.policy.egress import EgressPolicy
from netns.spec import Forward, SegmentSpec


def segment_spec(settings: Settings, forwards: tuple[Forward, ...] = ()) -> SegmentSpec:
    """What every tunnel's namespace has to be; `forwards` are added for each as their names resolve."""
    policy = EgressPolicy.of(settings)
    domains = DomainLists.of(settings)
    return SegmentSpec(
        denied=policy.denied,
        allowed=policy.allowed,
        special=policy.special_networks,
        denied_tcp_ports=policy.denied_tcp_ports,
        allowed_tcp_ports=policy.allowed_tcp_ports,
        denied_udp_ports=policy.denied_udp_ports,
        allowed_udp_ports=policy.allowed_udp_ports,
        forwards=forwards,
        max_tcp_flows=settings.max_tcp_connections,
        max_udp_flows=settings.max_udp_flows,
        max_bytes_per_second=settings.max_bytes_per_second,
        bytes_burst=settings.bytes_burst,
        max_new_flows_per_s=settings.max_new_flows_per_second,
        only_named=domains.only_named,
        redirect_dns=domains.own_dns,
        udp_idle_s=max(1, -(-settings.udp_flow_idle_timeout_ms // 1000)),
    )
