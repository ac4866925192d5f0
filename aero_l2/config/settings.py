"""Settings of the program, as the rest of it sees them: one frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from aero_l2.auth.keys import Keys
from aero_l2.auth.modes import AuthMode, AuthRules
from aero_l2.config.access import ANY_ORIGIN
from aero_l2.config.egress import PortRange, Prefix
from aero_l2.config.forwards import ForwardRule
from aero_l2.config.nameservers import NameServer
from aero_l2.config.values import ListenAddress
from aero_l2.web.forwarded import Network, ProxyTrust
from aero_l2.web.host import HostRules
from aero_l2.web.origin import OriginRules


@dataclass(frozen=True, slots=True)
class Settings:
    """What the program was told; units are in the names, docs/settings.md says where 0 means no limit.

    Its repr shows no secret, since that of `Keys` shows none.
    """

    listen: ListenAddress
    auth_mode: AuthMode
    session_secrets: Keys
    api_keys: Keys
    jwt_secrets: Keys
    jwt_audience: str | None
    jwt_issuer: str | None
    open: bool
    insecure_allow_no_auth: bool
    close_on_expiry: bool
    session_endpoint: bool
    session_ttl_secs: int
    sessions_per_minute_per_ip: int
    allowed_origins: tuple[str, ...]
    """In normal form, `AERO_L2_ALLOWED_ORIGINS_EXTRA` included; `*` stays."""
    allowed_hosts: tuple[str, ...]
    trust_proxy: bool
    trust_proxy_host: bool
    trusted_proxies: tuple[Network, ...]
    max_connections: int
    max_connections_per_session: int
    max_connections_per_ip: int
    upgrades_per_minute_per_ip: int
    max_setups: int
    max_waiting_setups: int
    max_loop_lag_ms: int
    upgrade_timeout_ms: int
    max_header_bytes: int
    raw_frames: bool
    max_frame_payload: int
    max_control_payload: int
    drain_ms: int
    shutdown_grace_ms: int
    send_stall_timeout_ms: int
    max_bytes_per_connection: int
    max_bytes_per_principal_hour: int
    max_frames_per_second: int
    max_session_seconds: int
    idle_timeout_ms: int
    ping_interval_ms: int
    resume_seconds: int
    allow_private_ips: bool
    denied_cidrs: tuple[Prefix, ...]
    allowed_cidrs: tuple[IPv4Network, ...]
    """Exceptions from what is denied without being listed."""
    denied_tcp_ports: tuple[PortRange, ...]
    allowed_tcp_ports: tuple[PortRange, ...]
    denied_udp_ports: tuple[PortRange, ...]
    allowed_udp_ports: tuple[PortRange, ...]
    allowed_domains: tuple[str, ...]
    """Empty: all but the blocked ones."""
    blocked_domains: tuple[str, ...]
    tcp_forward: tuple[ForwardRule, ...]
    udp_forward: tuple[ForwardRule, ...]
    dns_a: tuple[tuple[str, IPv4Address], ...]
    dns_servers: tuple[NameServer, ...]
    """Empty: those of the host."""
    dns_lookup_timeout_ms: int
    dns_default_ttl_secs: int
    dns_max_ttl_secs: int
    max_pending_dns: int
    max_dns_cache_entries: int
    max_tcp_connections: int
    max_tcp_memory: int
    """0: worked out from what the host has."""
    max_udp_flows: int
    max_new_flows_per_second: int
    udp_flow_idle_timeout_ms: int
    max_bytes_per_second: int
    max_bytes_burst: int
    """0: see `bytes_burst`."""
    max_packets_per_second: int
    max_packets_burst: int
    """0: one second's worth."""
    tcp_connect_timeout_ms: int
    log_level: str
    log_format: str
    metrics_listen: ListenAddress | None
    metrics: str
    admin_socket: str | None
    audit_log: str | None
    audit_max_bytes: int
    audit_max_files: int
    audit_dns: bool
    capture_dir: str | None
    capture_on_demand: bool
    capture_max_bytes: int
    capture_flush_interval_ms: int
    """0: a capture reaches its file when it is closed."""
    capture_max_files: int
    capture_snaplen: int
    user: str | None
    receive_path: str
    version: str
    git_sha: str
    built_at: str

    @property
    def forwards(self) -> tuple[ForwardRule, ...]:
        """Forwards of both protocols."""
        return self.tcp_forward + self.udp_forward

    @property
    def bytes_burst(self) -> int:
        """Bytes that may pass at once: as set, or a tenth of a second's worth, at least two large packets."""
        return self.max_bytes_burst or max(131_072, self.max_bytes_per_second // 10)

    @property
    def auth_rules(self) -> AuthRules:
        """Who may open a tunnel."""
        return AuthRules(
            mode=self.auth_mode,
            session=self.session_secrets,
            api_key=self.api_keys,
            jwt=self.jwt_secrets,
            audience=self.jwt_audience,
            issuer=self.jwt_issuer,
            open=self.open,
        )

    @property
    def origin_rules(self) -> OriginRules:
        """From which pages."""
        listed = frozenset(self.allowed_origins) - {ANY_ORIGIN}
        return OriginRules(listed, any_valid=ANY_ORIGIN in self.allowed_origins, open=self.open)

    @property
    def host_rules(self) -> HostRules:
        """Under which names of the proxy."""
        return HostRules(self.allowed_hosts)

    @property
    def proxy_trust(self) -> ProxyTrust:
        """Whose forwarding headers count."""
        return ProxyTrust(self.trust_proxy, self.trust_proxy_host, self.trusted_proxies)
