"""A tunnel's firewall: values in, nft text out. Pure; applied by `netns.nftables`.

Order of judgement for a packet of the guest: its source address, forwards, the NAT's network, denied
prefixes, allowed prefixes, the host's addresses, special-purpose prefixes, denied ports, allowed ports,
names (`netns.names`), limits. Ping has no port, so a list of allowed UDP ports refuses it unless it has them
all. What is refused is answered (TCP by RST, the rest by ICMP administratively prohibited, RFC 1812 section
5.2.7.1) and counted by reason, except broadcast and multicast, which nothing may answer (RFC 1122 section
3.2.2).

The gateway's own services are not tracked: they cost no conntrack entry, so a guest cannot fill the host's
table with queries.
"""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, collapse_addresses

from netns import answers, auditrules, hostrules, names, newflows, otherports, queues, shaping, udpports
from netns.portrules import has_all, refused_ports
from netns.spec import (
    GATEWAY,
    GUEST,
    LAN,
    NAT_CLIENT,
    NAT_HOST,
    NAT_NETWORK,
    Forward,
    SegmentSpec,
)

TABLE = "aero"
DENIED_COUNTERS = (
    "denied_spoofed",
    "denied_martian",
    "denied_gateway",
    "denied_lan",
    "denied_nat",
    "denied_host",
    "denied_prefix",
    "denied_special",
    "denied_port",
    "denied_protocol",
    "denied_stray",
    *names.COUNTERS,
)
"""Counters of packets that policy refused."""
_SILENT = ("limit_fragments", "limit_dns", "limit_new_flows", "limit_server", shaping.PINGS_COUNTER)
LIMIT_COUNTERS = (*_SILENT, "limit_tcp", "limit_udp", "limit_redirected_dns")
"""Counters of packets that a limit refused."""
LOST_COUNTERS = (*_SILENT, *shaping.COUNTERS.values(), *queues.COUNTERS.values())
"""Those of packets dropped without an answer, for a limit or a full queue; the last four are not of nft."""
IGNORED_COUNTERS = ("invalid", "ipv6", "icmp_errors")
"""Those of packets that are neither refused nor lost."""
COUNTERS = (*DENIED_COUNTERS, *LIMIT_COUNTERS, *answers.COUNTERS, *IGNORED_COUNTERS)

FRAGMENTS_PER_SECOND = 200
"""Enough for 20 datagrams of 15 KB a second; the kernel bounds their memory at 4 MiB a namespace."""

_SYN = "tcp flags & (fin | syn | rst | ack) == syn"
_NO_SYN = "tcp flags & (fin | syn | rst | ack) != syn"
# What a guest says of packets it got (RFC 792): nobody answers it, and it is no attempt to reach anything.
_ICMP_ERROR = (
    "icmp type { destination-unreachable, source-quench, redirect, time-exceeded, parameter-problem } "
    "counter name icmp_errors drop"
)
DNS_CONNECTIONS_PER_SECOND = 50
"""Untracked, so no flow limit holds them; a flood would also write the host's log (SYN flooding)."""
_NOWHERE = IPv4Address("192.0.2.1")
"""TEST-NET-1 (RFC 5737): stands in for a dialled loopback address on the way to its refusal."""

# RFC 5382 REQ-5: established connections live at least 2 h 4 min. No limit counts what is closed, so that
# goes soon; a connect that nothing answers is ended by the session.
_TCP_TIMEOUTS = (
    "syn_sent: 30, syn_recv: 30, established: 7440, fin_wait: 60, close_wait: 60, "
    "last_ack: 30, time_wait: 10, close: 1, unack: 300, retrans: 300"
)


@lru_cache(maxsize=64)
def render(spec: SegmentSpec, hosts: frozenset[IPv4Network], allow_ping: bool) -> str:
    """The nft script of a namespace, for ``nft -f -`` in a fresh one with both TAPs (one transaction).

    ``hosts``, the prefixes that are the host itself, fill `hostrules.HOST_SET`, changed later by netlink;
    ``allow_ping``: whether the NAT process may open ping sockets (sysctl net.ipv4.ping_group_range).
    """
    counters = "\n".join(f"  counter {name} {{ }}" for name in COUNTERS)
    rules = f"""\
table inet {TABLE} {{
{counters}
{auditrules.declarations(spec)}\
  set {hostrules.HOST_SET} {{ type ipv4_addr; flags interval; {_elements(collapse_addresses(hosts))} }}
  set denied4 {{ type ipv4_addr; flags interval; {_elements(collapse_addresses(spec.denied))} }}
  set allowed4 {{ type ipv4_addr; flags interval; {_elements(collapse_addresses(spec.allowed))} }}
  set special4 {{ type ipv4_addr; flags interval; {_elements(collapse_addresses(spec.special))} }}
{names.declarations(spec)}{otherports.declarations(spec)}{udpports.declarations(spec)}\
{newflows.declarations(spec.max_new_flows_per_s)}\
  ct timeout tcp_life {{
    protocol tcp; l3proto ip; policy = {{ {_TCP_TIMEOUTS} }};
  }}
  ct timeout udp_life {{
    protocol udp; l3proto ip; policy = {{ unreplied: {spec.udp_idle_s}, replied: {spec.udp_idle_s} }};
  }}
{_guard()}
{_services(spec)}
{_martians()}
{_nat(spec)}
{_input(spec)}
{names.redirected_chain(spec, _NO_SYN)}\
{answers.render()}
{_forward(spec, allow_ping)}
{_refusal()}
{shaping.render(spec.max_bytes_per_second, spec.bytes_burst)}}}
table arp {TABLE} {{
  chain input {{
    type filter hook input priority filter; policy drop;
    iif "tap0" arp saddr ip {{ 0.0.0.0, {GUEST} }} arp daddr ip {GATEWAY} accept
    iif "tap1" arp saddr ip {NAT_HOST} arp daddr ip {NAT_CLIENT} accept
  }}
}}
"""
    return auditrules.told(rules, spec)


def _guard() -> str:
    """Before defragmentation (-400): only IPv4, only the guest's address, fragments at a bounded rate.

    The gateway's broadcasts (DHCP) come back to it as copies, still marked as not tracked, which no packet
    of a guest is here: they are not the guest's, and do not count.
    """
    over = f"limit rate over {FRAGMENTS_PER_SECOND}/second burst {2 * FRAGMENTS_PER_SECOND} packets"
    return f"""\
  chain guard {{
    type filter hook prerouting priority -450; policy accept;
    meta nfproto != ipv4 counter name ipv6 drop
    iif != "tap0" accept
{newflows.short_lived(_NO_SYN)}
    ip frag-off & 0x3fff != 0 {over} counter name limit_fragments drop
    ip saddr {GUEST} accept
    ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept
    ip saddr {GATEWAY} ct state untracked drop
    counter name denied_spoofed drop
  }}"""


def _services(spec: SegmentSpec) -> str:
    """The gateway's own DHCP, DNS and echo, kept out of conntrack (raw, -300).

    What it sends are their answers and the refusals of guests' packets, to the guest and to nobody else.
    """
    over = (
        f"limit rate over {DNS_CONNECTIONS_PER_SECOND}/second burst {2 * DNS_CONNECTIONS_PER_SECOND} packets"
    )
    syn = f"tcp dport 53 {_SYN} {over} counter name limit_dns drop"
    return f"""\
  chain untracked {{
    type filter hook prerouting priority raw; policy accept;
    iif "tap0" udp dport 67 ip daddr {{ {GATEWAY}, {LAN.broadcast_address}, 255.255.255.255 }} notrack
    iif "tap0" ip daddr {GATEWAY} {syn}
    iif "tap0" ip daddr {GATEWAY} meta l4proto {{ tcp, udp }} th dport 53 notrack
    iif "tap0" ip daddr {GATEWAY} icmp type echo-request notrack
  }}
  chain output {{
    type filter hook output priority raw; policy drop;
{names.tracked_answers(spec)}\
    oif "tap0" ip saddr {GATEWAY} notrack accept
    oif "tap0" meta l4proto {{ tcp, icmp }} ip daddr {GUEST} accept
  }}"""


def _martians() -> str:
    """Destinations that routing drops in silence are refused before it sees them (-150).

    A RST from 127.0.0.1 cannot be routed, so TCP to loopback is given another address first (see `_nat`);
    the forward chain refuses it by the address that was dialled, and NAT restores that in the RST.
    """
    return """\
  chain martians {
    type filter hook prerouting priority -150; policy accept;
    iif "tap0" ip daddr 127.0.0.0/8 meta l4proto != tcp counter name denied_martian goto refuse
    iif "tap0" ip daddr 0.0.0.0/8 counter name denied_martian goto refuse
    iif "tap0" ip daddr 224.0.0.0/4 counter name denied_martian drop
  }"""


def _nat(spec: SegmentSpec) -> str:
    rules = "\n".join(f"    {_dnat(forward)}" for forward in spec.forwards)
    return f"""\
  chain forwards {{
    type nat hook prerouting priority dstnat; policy accept;
    iif "tap0" ip daddr 127.0.0.0/8 meta l4proto tcp dnat ip to {_NOWHERE}
{rules}
{names.redirection(spec)}{otherports.translation()}
  }}
{udpports.chain(spec)}{udpports.source_nat(spec)}"""


def _dnat(forward: Forward) -> str:
    target = NAT_HOST if forward.needs_host_loopback else forward.target
    return (
        f'iif "tap0" ip daddr {forward.address} {forward.protocol} dport {forward.port} '
        f"dnat ip to {target}:{forward.target_port}"
    )


def _input(spec: SegmentSpec) -> str:
    return f"""\
  chain input {{
    type filter hook input priority filter; policy drop;
    iif != "tap0" drop
    udp dport 67 ip daddr {{ {GATEWAY}, {LAN.broadcast_address}, 255.255.255.255 }} accept
    ip daddr {GATEWAY} meta l4proto {{ tcp, udp }} th dport 53 accept
    ip daddr {GATEWAY} icmp type echo-request accept
{names.input_rule(spec)}\
    {_ICMP_ERROR}
    counter name denied_gateway goto refuse
  }}"""


def _forward(spec: SegmentSpec, allow_ping: bool) -> str:
    ports = [
        *refused_ports("tcp", spec.denied_tcp_ports, spec.allowed_tcp_ports),
        *refused_ports("udp", spec.denied_udp_ports, spec.allowed_udp_ports),
    ]
    if has_all(spec.allowed_udp_ports):
        ping = "    icmp type echo-request goto admit_udp\n" if allow_ping else ""
    else:
        ping = "    icmp type echo-request counter name denied_port goto refuse\n"
    return f"""\
  chain forward {{
    type filter hook forward priority filter; policy drop;
    iif "tap1" oif "tap0" ct state established,related accept
{otherports.entrance()}
    iif "tap1" drop
{hostrules.outlived()}
    ct state established meta l4proto != tcp accept
    ct state established {_NO_SYN} accept
    {newflows.REOPENED} counter name invalid drop
    {_ICMP_ERROR}
    ct original ip daddr 127.0.0.0/8 counter name denied_martian goto refuse
    meta l4proto != {{ tcp, udp, icmp }} counter name denied_protocol goto refuse
    ct state invalid counter name invalid drop
    oif != "tap1" counter name denied_lan goto refuse
{newflows.abandoned()}
    meta l4proto tcp {_NO_SYN} counter name denied_stray goto refuse
    ct status dnat goto admit
    ip daddr {NAT_NETWORK} counter name denied_nat goto refuse
    ip daddr @denied4 counter name denied_prefix goto refuse
    ip daddr @allowed4 goto admit
    ip daddr @{hostrules.HOST_SET} counter name denied_host goto refuse
    ip daddr @special4 counter name denied_special goto refuse
    goto admit
  }}
  chain admit {{
{"".join(f"    {rule}{chr(10)}" for rule in ports)}\
{names.refuse_encrypted_dns(spec)}\
{names.refuse_unnamed(spec)}\
{otherports.remember(newflows.BEGUN)}
    {newflows.BEGUN} accept
{newflows.limited_to_one_server(spec.max_new_flows_per_s)}\
{newflows.limited(spec.max_new_flows_per_s)}\
    meta l4proto tcp goto admit_tcp
    meta l4proto udp goto admit_udp
{ping}    counter name denied_protocol goto refuse
  }}
  chain admit_tcp {{
{_limit(spec.max_tcp_flows, "limit_tcp")}{auditrules.begun(spec)}\
    {newflows.TCP_EVENTS}
    ct timeout set "tcp_life"
    accept
  }}
{otherports.chain(spec)}
{hostrules.chain()}
  chain admit_udp {{
{_limit(spec.max_udp_flows, "limit_udp")}{auditrules.begun(spec)}\
{otherports.remember()}
    {newflows.UDP_EVENTS}
    meta l4proto udp ct timeout set "udp_life"
    accept
  }}"""


def _limit(flows: int, counter: str) -> str:
    return f"    ct count over {flows} counter name {counter} goto refuse\n" if flows else ""


def _refusal() -> str:
    """The answer to whatever was counted and sent here."""
    return """\
  chain refuse {
    meta l4proto tcp reject with tcp reset
    reject with icmp type admin-prohibited
  }"""


def _elements(values: Iterable[object]) -> str:
    listed = ", ".join(str(value) for value in values)
    return f"elements = {{ {listed} }};" if listed else ""
