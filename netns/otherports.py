"""The part of a tunnel's firewall that lets answers in from another port; see `netns.ruleset`. Pure.

A server may answer a datagram from another port than the one that was asked, as each TFTP server does (RFC
1350 section 4). Connection tracking knows no such flow. So the address that a guest's port has sent to is
remembered, for the idle time of a flow from its last datagram that nothing had answered, and a datagram from
there to that port begins a flow of its own: address-dependent filtering, as RFC 4787 REQ-8 has it. From any
other address nothing comes in.
"""

from netns import hostrules, newflows
from netns.names import ENCRYPTED_DNS_PORT, NAMED_SET
from netns.portrules import refused_udp_sources
from netns.spec import GUEST, NAT_CLIENT, SegmentSpec

ASKED_SET = "asked4"
MAX_ASKED = 1024
"""Elements of `ASKED_SET`. Of flows beyond, only the port that was asked answers; no more begin outside."""
_ELEMENT = "ip daddr . udp sport"


def declarations(spec: SegmentSpec) -> str:
    """The set of addresses that were sent to, each with the guest's port."""
    kind = "type ipv4_addr . inet_service; flags dynamic, timeout"
    return f"  set {ASKED_SET} {{ {kind}; timeout {spec.udp_idle_s}s; size {MAX_ASKED}; }}\n"


def remember(match: str = "") -> str:
    """A line for datagrams that are let through and that nothing has answered yet; ``match`` narrows it.

    Forwards are left out: their targets have another address than the guest asked.
    """
    mine = 'iif "tap0" meta l4proto udp ct status & dnat == 0'
    return f"    {mine} {match} update @{ASKED_SET} {{ {_ELEMENT} }}"


def translation() -> str:
    """A line that sends to the guest what comes from an address that was asked (nat, prerouting)."""
    return f'    iif "tap1" ip daddr {NAT_CLIENT} ip saddr . udp dport @{ASKED_SET} dnat ip to {GUEST}'


def entrance() -> str:
    """A line for the forward chain, behind the one that accepts what belongs to a flow."""
    return '    iif "tap1" oif "tap0" meta l4proto udp ct status dnat goto other_port'


def chain(spec: SegmentSpec) -> str:
    """Judge who answers and from which port, as if the guest had dialled it, and keep the limits of flows.

    An address may have become the host's own since it was asked. The guest may send to that port from then
    on, so what is denied to it does not come in either, nor what a forward leads elsewhere. Flows that begin
    outside get half of the number and have a rate of their own, a tenth, so that the guest can begin its own
    whatever comes in.
    """
    rules = [f"{hostrules.named('ip saddr')} drop"]
    rules += refused_udp_sources(spec.denied_udp_ports, spec.allowed_udp_ports)
    if spec.redirect_dns:
        rules.append(f"udp sport {{ 53, {ENCRYPTED_DNS_PORT} }} drop")
    if spec.only_named:
        rules.append(f"ip saddr != @{NAMED_SET} drop")
    if led := [f"{f.address} . {f.port}" for f in spec.forwards if f.protocol == "udp"]:
        rules.append(f"ip saddr . udp sport {{ {', '.join(led)} }} drop")
    return f"""\
  chain other_port {{
    {newflows.BEGUN} accept
{"".join(f"    {rule}{chr(10)}" for rule in rules)}\
{newflows.limited(-(-spec.max_new_flows_per_s // 10))}\
    ct count over {_most(spec.max_udp_flows)} counter name limit_udp drop
    goto admit_udp
  }}"""


def _most(udp_flows: int) -> int:
    """How many of a tunnel's ``udp_flows`` (0 = no limit) may begin outside.

    A server that was asked, or who sends in its name, could else hold all of them for good. A transfer by
    TFTP takes two, one that begins here and one there, so half of them costs it none.
    """
    return min(MAX_ASKED, max(1, udp_flows // 2)) if udp_flows else MAX_ASKED
