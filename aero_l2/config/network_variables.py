"""The settings of a tunnel's network, declared: a part of `aero_l2.config.variables.VARIABLES`."""

from __future__ import annotations

from typing import Final

from aero_l2.config import egress, values
from aero_l2.config.domains import domains
from aero_l2.config.forwards import dns_records, tcp_forwards, udp_forwards
from aero_l2.config.nameservers import name_servers
from aero_l2.config.values import Number, ZeroOr
from aero_l2.config.variable import NO_LIMIT, Theme, Variable

_MANY: Final = 1_000_000
_DAY_MS: Final = 86_400_000
_MAX_BYTES: Final = 4_000_000_000
_MAX_TTL_S: Final = 2**31 - 1  # RFC 2181 §8

_limit = Number(0, _MANY, NO_LIMIT)
_duration_ms = Number(1, _DAY_MS)
_ttl = Number(1, _MAX_TTL_S)

NETWORK_THEMES: Final[tuple[Theme, ...]] = (
    Theme("What a guest may reach", (
        Variable(
            "allow_private_ips", "AERO_L2_ALLOW_PRIVATE_IPS", "0", values.boolean,
            "Private and other special-purpose addresses are within reach, but for those that never are "
            "(docs/policy.md).",
        ),
        Variable(
            "denied_cidrs", "AERO_L2_DENIED_CIDRS", "", egress.denied_prefixes,
            "Prefixes or addresses out of reach, whatever else but a forward says otherwise. IPv6 may be "
            "listed, and is out of reach anyway.",
            listed=True,
        ),
        Variable(
            "allowed_cidrs", "AERO_L2_ALLOWED_CIDRS", "", egress.allowed_prefixes,
            "IPv4 prefixes or addresses within reach although they are private, the host's own or otherwise "
            "denied. Exceptions: what is not listed is not denied for that.", listed=True,
        ),
        Variable(
            "denied_tcp_ports", "AERO_L2_DENIED_TCP_PORTS", "25", egress.ports,
            "TCP ports and ranges (8000-8100) out of reach; blank = none, which is also the default where "
            "AERO_L2_ALLOWED_TCP_PORTS is set.", listed=True, blank_is_empty=True,
        ),
        Variable(
            "allowed_tcp_ports", "AERO_L2_ALLOWED_TCP_PORTS", "1-65535", egress.ports,
            "The only TCP ports and ranges within reach; blank = none.", listed=True, blank_is_empty=True,
        ),
        Variable(
            "denied_udp_ports", "AERO_L2_DENIED_UDP_PORTS", "", egress.ports,
            "UDP ports and ranges out of reach; blank = none.", listed=True, blank_is_empty=True,
        ),
        Variable(
            "allowed_udp_ports", "AERO_L2_ALLOWED_UDP_PORTS", "1-65535", egress.ports,
            "The only UDP ports and ranges within reach; blank = none. Less than all refuses ping too.",
            listed=True, blank_is_empty=True,
        ),
        Variable(
            "allowed_domains", "AERO_L2_ALLOWED_DOMAINS", "", domains,
            "The only domains, with all names below them, that guests may look up; then no address is within "
            "reach but those that DNS has handed out for these names.", listed=True,
        ),
        Variable(
            "blocked_domains", "AERO_L2_BLOCKED_DOMAINS", "", domains,
            "Domains, with all names below them, that guests cannot look up, allowed or not. Their addresses "
            "stay within reach for who knows them.", listed=True,
        ),
    )),
    Theme("The guest's network", (
        Variable(
            "tcp_forward", "AERO_L2_TCP_FORWARD", "", tcp_forwards,
            "ip:port=host:port,…: guests' TCP connections to the left go to the right.", listed=True,
        ),
        Variable(
            "udp_forward", "AERO_L2_UDP_FORWARD", "", udp_forwards,
            "ip:port=host:port,…: guests' datagrams to the left go to the right.", listed=True,
        ),
        Variable(
            "dns_a", "AERO_L2_DNS_A", "", dns_records,
            "name=ip,…: answered as given, ahead of every filter.", listed=True,
        ),
        Variable(
            "dns_servers", "AERO_L2_DNS_SERVERS", "", name_servers,
            "ip[:port],…, at most 3: the DNS servers to ask, the first one first. Unset: those of the host's "
            "resolv.conf, as it changes.", listed=True,
        ),
        Variable(
            "dns_lookup_timeout_ms", "AERO_L2_DNS_LOOKUP_TIMEOUT_MS", "2000", _duration_ms,
            "After so long without an answer from upstream the guest gets SERVFAIL.", "ms",
        ),
        Variable(
            "dns_default_ttl_secs", "AERO_L2_DNS_DEFAULT_TTL_SECS", "60", _ttl,
            "TTL of answers out of AERO_L2_DNS_A.", "s",
        ),
        Variable(
            "dns_max_ttl_secs", "AERO_L2_DNS_MAX_TTL_SECS", "300", _ttl,
            "Largest TTL of addresses, aliases and services (SVCB, HTTPS) in an answer.", "s",
        ),
        Variable(
            "max_pending_dns", "AERO_L2_STACK_MAX_PENDING_DNS", "1024", _limit,
            "DNS queries of the whole process under way at once. One tunnel has at most 128 of them, and "
            "half of what is free; four it may have while any is free.",
        ),
        Variable(
            "max_dns_cache_entries", "AERO_L2_STACK_MAX_DNS_CACHE_ENTRIES", "10000", _limit,
            "DNS answers kept, those of all tunnels together. One tunnel has at most half of what is free; "
            "16 MiB is the limit in any case.",
        ),
        Variable(
            "max_tcp_connections", "AERO_L2_STACK_MAX_TCP_CONNECTIONS", "1024", _limit,
            "TCP flows of a tunnel.",
        ),
        Variable(
            "max_tcp_memory", "AERO_L2_MAX_TCP_MEMORY_BYTES", "0",
            ZeroOr(1_048_576, 10**15, "half of what the kernel has for TCP, a quarter of a memory limit"),
            "What the kernel may hold for the TCP connections of all guests together. Beyond that the tunnel "
            "that holds the most loses its largest connections (docs/capacity.md).", "bytes",
        ),
        Variable(
            "max_udp_flows", "AERO_L2_MAX_UDP_FLOWS_PER_TUNNEL", "256", _limit, "UDP flows of a tunnel.",
        ),
        Variable(
            "max_new_flows_per_second", "AERO_L2_MAX_NEW_FLOWS_PER_SECOND", "500", _limit,
            "TCP, UDP and ping flows that a tunnel may begin in a second, after a burst of twice as many. "
            "What is beyond is dropped without an answer.", "flows/s",
        ),
        Variable(
            "tcp_connect_timeout_ms", "AERO_L2_TCP_CONNECT_TIMEOUT_MS", "5000", _duration_ms,
            "A TCP connection that nobody answers for so long ends for the guest with a RST.", "ms",
            reloadable=True,
        ),
        Variable(
            "udp_flow_idle_timeout_ms", "AERO_L2_UDP_FLOW_IDLE_TIMEOUT_MS", "60000", _duration_ms,
            "A UDP flow without packets for so long is forgotten.", "ms",
        ),
        Variable(
            "max_bytes_per_second", "AERO_L2_MAX_BYTES_PER_SECOND", "0", ZeroOr(10_000, _MAX_BYTES, NO_LIMIT),
            "Bytes a second of a tunnel and direction; what exceeds it waits, and is dropped where too much "
            "waits (docs/policy.md).", "bytes/s",
        ),
        Variable(
            "max_bytes_burst", "AERO_L2_MAX_BYTES_PER_SECOND_BURST", "0",
            ZeroOr(65_536, _MAX_BYTES, "a tenth of a second's worth, at least 131072"),
            "Bytes that may pass at once where AERO_L2_MAX_BYTES_PER_SECOND is set.", "bytes",
        ),
        Variable(
            "max_packets_per_second", "AERO_L2_MAX_PACKETS_PER_SECOND", "0", _limit,
            "Frames of a guest that are passed on a second; what exceeds it is dropped, the tunnel stays.",
            "frames/s", reloadable=True,
        ),
        Variable(
            "max_packets_burst", "AERO_L2_MAX_PACKETS_PER_SECOND_BURST", "0",
            Number(0, _MANY, "a second's worth"),
            "Frames that may pass at once where AERO_L2_MAX_PACKETS_PER_SECOND is set.", "frames",
            reloadable=True,
        ),
    )),
)  # fmt: skip
