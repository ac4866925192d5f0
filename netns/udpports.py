"""The part of a tunnel's firewall that bounds the host's UDP ports a guest takes; see `netns.ruleset`. Pure.

libslirp opens a socket, and with it a port of the host, for each port that a datagram comes from, and keeps
it for four minutes after the last one, however soon connection tracking forgets the flow. A guest that goes
through its ports would hold several times as many as it may have flows. So its first ports go to the NAT
process as they are, and are remembered for as long as libslirp remembers them; flows from further ones share
the ports of a range, where connection tracking gives each flow a port that tells its answers from others'.
There are more of them than there may be flows, so no flow is refused for it.
"""

from netns.spec import NAT_CLIENT, SegmentSpec

OWN_SET = "own_udp_ports"
KEPT_S = 245
"""libslirp 4.7's SO_EXPIRE is 240 s; it looks a moment later. Not shorter here than there."""
SHARED_FROM = 512
"""First of the shared ports: hardly any program sends from there; what does has its port if it is free."""
_LAST_PORT = 65535
_FEWEST_OWN, _MOST_OWN = 16, 8192


def own_ports(udp_flows: int) -> int:
    """How many ports of a guest that may have so many flows are not shared; the kernel has room for all."""
    return min(max(_FEWEST_OWN, udp_flows * 3 // 8), _MOST_OWN)


def shared_ports(udp_flows: int) -> range:
    """The ports that the others share: one and a half times the flows, together with those that are not.

    An eighth more than flows, since the kernel tries some of them by chance, 240 at most, and not all.
    """
    return range(SHARED_FROM, min(SHARED_FROM + udp_flows * 9 // 8, _LAST_PORT + 1))


def declarations(spec: SegmentSpec) -> str:
    """The set of ports that are not shared."""
    if not spec.max_udp_flows:
        return ""
    kind = "type inet_service; flags dynamic, timeout"
    return f"  set {OWN_SET} {{ {kind}; timeout {KEPT_S}s; size {own_ports(spec.max_udp_flows)}; }}\n"


def chain(spec: SegmentSpec) -> str:
    """Each datagram, either way, makes libslirp keep its socket for as long again.

    So it does for what comes from outside once the flow is forgotten and nothing of it reaches the guest:
    therefore before connection tracking's verdict is looked at, and before translation (see packet flow in
    nft(8)), where the port is the one that libslirp knows.
    """
    if not spec.max_udp_flows:
        return ""
    return f"""\
  chain keep_own {{
    type filter hook prerouting priority mangle; policy accept;
    iif "tap0" udp sport @{OWN_SET} update @{OWN_SET} {{ udp sport }}
    iif "tap1" udp dport @{OWN_SET} update @{OWN_SET} {{ udp dport }}
  }}
"""


def source_nat(spec: SegmentSpec) -> str:
    """The chain that gives the guest's flows the address, and the ports, that the NAT process sees.

    ``update`` matches only what is in the set, or still fits in. A port of the range is never one's own: then
    two flows never want the same port where it may not be another. Nor is one that asks a name server:
    programs ask from a new port each time, and libslirp closes its socket 10 s after the answer.
    """
    rules = ""
    if spec.max_udp_flows:
        shared = shared_ports(spec.max_udp_flows)
        span = f"{shared[0]}-{shared[-1]}"
        own = f"udp dport != 53 udp sport != {span} update @{OWN_SET} {{ udp sport }}"
        rules = f"""\
    oif "tap1" {own} snat ip to {NAT_CLIENT} : udp sport
    oif "tap1" meta l4proto udp snat ip to {NAT_CLIENT}:{span}
"""
    return f"""\
  chain source_nat {{
    type nat hook postrouting priority srcnat; policy accept;
{rules}\
    oif "tap1" snat ip to {NAT_CLIENT}
  }}"""
