"""The part of a tunnel's firewall that is about flows beginning and given up; see `netns.ruleset`. Pure."""

from typing import Final

from netns import conntrack

ABANDONED: Final = 1
"""Mark of a connection that the guest's side reset before it was open."""
OWN: Final = conntrack.UNCOUNTED
"""Mark of a connection that ends at the gateway."""
BEGUN: Final = "ct status & confirmed != 0"
"""A match for what belongs to a flow that was let through and counted before: a SYN that is sent again, the
second datagram of a flow that nobody answers. `ct count` must not see it: it would walk all the flows there
are for each such packet, a tenth of a millisecond for 1,024 of them."""
REOPENED: Final = "ct state established ct expiration < 11s"
"""A match for a SYN on a connection that is closed but not forgotten, for those that reach it: `ct count` has
let go of it, and conntrack would take it up again, counted by nobody. The time-outs of closed connections are
10 s at most (`netns.ruleset`), and a client's next SYN begins a flow."""
TCP_EVENTS: Final = "ct event set new,destroy,protoinfo"
"""What `netns.conntrack` reads: a change of state tells that a connection is closed."""
UDP_EVENTS: Final = "ct event set new,destroy"
CONNECTED_SET: Final = "connected4"
CONNECTED_SECONDS: Final = 12
"""By then an allowance is whole again: what is remembered longer changes nothing."""
MAX_CONNECTED: Final = 512
"""Elements of `CONNECTED_SET`, servers that are told apart; its table takes 8 KiB of kernel memory."""
TO_ONE_SERVER_PER_SECOND: Final = 50
TO_ONE_SERVER_BURST: Final = 500
"""Connections to one address and port. Who closes first leaves a port of the host unusable towards there for
a minute (TIME_WAIT): 3,500 of usually 28,232 at most."""
NO_EVENTS: Final = "ct event set label"
"""For what is no flow of the guest's: nobody sets labels here."""


def short_lived(no_syn: str) -> str:
    """Lines that drop TCP whose hops end here, but for whole SYNs, before connection tracking sees it.

    Routing would drop it afterwards: a RST would close the connection here and never reach the NAT process,
    which goes on holding it. ``no_syn`` matches a TCP packet that opens no connection.
    """
    return f"""\
    ip ttl < 2 ip protocol tcp ip frag-off & 0x3fff != 0 counter name invalid drop
    ip ttl < 2 {no_syn} counter name invalid drop"""


def declarations(per_second: int) -> str:
    """The set of servers that the guest has connected to; nothing without a limit of new flows."""
    if not per_second:
        return ""
    kind = "type ipv4_addr . inet_service; flags dynamic, timeout"
    return f"  set {CONNECTED_SET} {{ {kind}; timeout {CONNECTED_SECONDS}s; size {MAX_CONNECTED}; }}\n"


def limited_to_one_server(per_second: int) -> str:
    """Lines that drop connects to one server beyond its own rate; nothing without a limit of new flows.

    ``update`` matches only what is in the set, or still fits in: the servers beyond share one allowance.
    They stand ahead of `limited`, so that one server's excess takes nothing from the others.
    """
    if not per_second:
        return ""
    over = f"limit rate over {TO_ONE_SERVER_PER_SECOND}/second burst {TO_ONE_SERVER_BURST} packets"
    server, dropped = "ip daddr . tcp dport", "counter name limit_server drop"
    return f"""\
    meta l4proto tcp update @{CONNECTED_SET} {{ {server} {over} }} {dropped}
    meta l4proto tcp {server} != @{CONNECTED_SET} {over} {dropped}
"""


def limited(per_second: int) -> str:
    """A line that drops flows beyond ``per_second`` (0 = no limit); a burst of twice as many passes.

    It stands behind `BEGUN`, so that only flows count which begin.
    """
    if not per_second:
        return ""
    over = f"limit rate over {per_second}/second burst {2 * per_second} packets"
    return f"    {over} counter name limit_new_flows drop\n"


def abandoned() -> str:
    """A line that lets the reset of a connect pass which nobody has answered, and marks its entry."""
    reset = "tcp flags & (fin | syn | rst) == rst"
    return f"    {reset} {BEGUN} ct mark set {ABANDONED} accept"
