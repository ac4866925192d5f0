"""The part of a tunnel's firewall that follows from lists of domain names; see `netns.ruleset`. Pure.

Where names are listed, the gateway's DNS is the only one: port 53 of any other server leads to a second pair
of its sockets, and DNS over TLS or QUIC is refused. Where names are allowed, only addresses that this DNS has
handed out are within reach, for as long as they stay in the set `NAMED_SET`.

Redirected flows are tracked, since the answer has to come from the address that was asked. So they are
limited and forgotten fast, and count as no flows of the guest's; the gateway's own port 53 stays out of
conntrack.
"""

from netns import newflows
from netns.spec import GATEWAY, LAN, NAT_NETWORK, REDIRECTED_DNS_PORT, SegmentSpec

NAMED_SET = "named4"
MAX_NAMED = 4096
"""Elements of `NAMED_SET`, those that have just expired included. Its table takes 64 KiB of kernel memory."""
COUNTERS = ("denied_name", "denied_encrypted_dns")
"""Counters of packets to addresses that DNS has not handed out, and to ports of encrypted DNS."""
MAX_REDIRECTED_FLOWS = 256
NEW_CONNECTIONS_PER_SECOND = 50
"""As for connections to the gateway's own DNS (`netns.ruleset`)."""
ENCRYPTED_DNS_PORT = 853
"""TCP: DNS over TLS (RFC 7858). UDP: over QUIC (RFC 9250), over DTLS (RFC 8094)."""

_NOT_FORWARDED = "ct status & dnat == 0"
# A lookup is answered within seconds, and a forgotten flow costs the guest no more than asking again.
_UDP_TIMEOUTS = "unreplied: 30, replied: 3"
_TCP_TIMEOUTS = (
    "syn_sent: 5, syn_recv: 5, established: 60, fin_wait: 5, close_wait: 10, last_ack: 5, time_wait: 3, "
    "close: 1, unack: 30, retrans: 30"
)


def declarations(spec: SegmentSpec) -> str:
    """The set of addresses and the time-outs of redirected flows."""
    text = ""
    if spec.only_named:
        text += f"  set {NAMED_SET} {{ type ipv4_addr; flags timeout; size {MAX_NAMED}; }}\n"
    if spec.redirect_dns:
        text += f"  ct timeout dns_udp {{ protocol udp; l3proto ip; policy = {{ {_UDP_TIMEOUTS} }}; }}\n"
        text += f"  ct timeout dns_tcp {{ protocol tcp; l3proto ip; policy = {{ {_TCP_TIMEOUTS} }}; }}\n"
    return text


def redirection(spec: SegmentSpec) -> str:
    """Destination NAT of DNS to other servers, behind the forwards, which win. Broadcasts stay."""
    if not spec.redirect_dns:
        return ""
    elsewhere = f"ip daddr != {{ {LAN}, {NAT_NETWORK}, 255.255.255.255 }}"
    asked = f'iif "tap0" {elsewhere} meta l4proto {{ tcp, udp }} th dport 53'
    return f"    {asked} dnat ip to {GATEWAY}:{REDIRECTED_DNS_PORT}\n"


def tracked_answers(spec: SegmentSpec) -> str:
    """What the second pair of sockets sends, ahead of the rule that leaves the gateway's untracked."""
    if not spec.redirect_dns:
        return ""
    port = f"th sport {REDIRECTED_DNS_PORT}"
    return f'    oif "tap0" ip saddr {GATEWAY} meta l4proto {{ tcp, udp }} {port} accept\n'


def input_rule(spec: SegmentSpec) -> str:
    """Let redirected flows in; who dials the second port itself is refused like at any other."""
    if not spec.redirect_dns:
        return ""
    port = f"th dport {REDIRECTED_DNS_PORT}"
    return f"    ct status dnat ip daddr {GATEWAY} meta l4proto {{ tcp, udp }} {port} goto redirected_dns\n"


def redirected_chain(spec: SegmentSpec, no_syn: str) -> str:
    """The limits of redirected flows; ``no_syn`` matches a TCP packet that opens no connection."""
    if not spec.redirect_dns:
        return ""
    rate = f"{NEW_CONNECTIONS_PER_SECOND}/second burst {2 * NEW_CONNECTIONS_PER_SECOND} packets"
    over = "counter name limit_redirected_dns goto refuse"
    return f"""\
  chain redirected_dns {{
    ct state established meta l4proto != tcp accept
    ct state established {no_syn} accept
    ct state established counter name invalid drop
    meta l4proto udp {newflows.BEGUN} accept
    ct state invalid counter name invalid drop
    meta l4proto tcp {no_syn} counter name denied_stray goto refuse
    meta l4proto tcp limit rate over {rate} {over}
    meta l4proto udp limit rate over {MAX_REDIRECTED_FLOWS}/second burst {MAX_REDIRECTED_FLOWS} packets {over}
    ct count over {MAX_REDIRECTED_FLOWS} {over}
    meta l4proto tcp ct timeout set "dns_tcp"
    meta l4proto udp ct timeout set "dns_udp"
    {newflows.NO_EVENTS} ct mark set {newflows.OWN}
    accept
  }}
"""


def refuse_encrypted_dns(spec: SegmentSpec) -> str:
    """A rule for every protocol, behind the port lists."""
    if not spec.redirect_dns:
        return ""
    port = f"meta l4proto {{ tcp, udp }} th dport {ENCRYPTED_DNS_PORT}"
    return f"    {_NOT_FORWARDED} {port} counter name denied_encrypted_dns goto refuse\n"


def refuse_unnamed(spec: SegmentSpec) -> str:
    """The rule that is judged last, for every protocol; only limits come behind it."""
    if not spec.only_named:
        return ""
    return f"    {_NOT_FORWARDED} ip daddr != @{NAMED_SET} counter name denied_name goto refuse\n"
