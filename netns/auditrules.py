"""What a tunnel's firewall tells for an audit log, where that is asked for; see `netns.ruleset`. Pure.

Each rule that refuses copies the header of its first packets to `netns.denials`, at a bounded rate; how many
there were is what its counter says. Connection tracking counts packets and bytes, and flows are counted as
they begin, so that whoever reads their ends can tell whether some are missing.
"""

import re
from typing import Final

from netns.spec import SegmentSpec

GROUP: Final = 1
"""Of nfnetlink_log, in the tunnel's own namespace."""
HEADER: Final = 20
COPIED: Final = 24
"""Bytes of a packet: an IPv4 header without options and, of TCP and UDP, the ports. Not one of payload."""
PER_SECOND: Final = 5
BURST: Final = 20
"""Copies of each rule; packets beyond are only counted."""
FLOWS: Final = "flows_begun"
"""Counter of flows that were let through."""
FORWARDED: Final = "/forward"
"""Behind the rule's name: the packet goes to a forward's target, which is what its header says."""

_REFUSING = re.compile(r"counter name (denied_\w+) (goto refuse|drop)$", re.MULTILINE)
# Translated before it is refused, and copied before that, since a header says where it goes then.
_LOOPBACK = 'iif "tap0" ip daddr 127.0.0.0/8 meta l4proto tcp'
_LOOPBACK_REFUSED = "ct original ip daddr 127.0.0.0/8 counter name denied_martian"
_REFUSAL = "  chain refuse {\n"


def declarations(spec: SegmentSpec) -> str:
    """The counter of flows."""
    return f"  counter {FLOWS} {{ }}\n" if spec.audit else ""


def begun(spec: SegmentSpec) -> str:
    """A line for what begins a flow, behind every limit."""
    return f"    counter name {FLOWS}\n" if spec.audit else ""


def told(rules: str, spec: SegmentSpec) -> str:
    """The rules, with all that refuse telling of it; as they are where nobody asks for it."""
    if not spec.audit:
        return rules
    chains: dict[str, str] = {}

    def detour(refusing: re.Match[str]) -> str:
        rule, verdict = refusing.groups()
        name = f"tell_{rule}" + ("_silently" if verdict == "drop" else "")
        chains[name] = _chain(name, rule, verdict)
        return f"counter name {rule} goto {name}"

    kept = rules.replace(f"{_LOOPBACK_REFUSED} goto refuse", _LOOPBACK_REFUSED)  # told of already
    told_of = _REFUSING.sub(detour, kept)
    told_of = told_of.replace(_LOOPBACK_REFUSED, f"{_LOOPBACK_REFUSED} goto refuse")
    told_of = told_of.replace(f"{_LOOPBACK} dnat", f"{_LOOPBACK} jump tell_loopback\n    {_LOOPBACK} dnat")
    chains["tell_loopback"] = _chain("tell_loopback", "denied_martian", "return")
    chains["tell_bytes"] = "  chain tell_bytes {\n    ct bytes 0 return\n  }\n"  # switches accounting on
    return told_of.replace(_REFUSAL, "".join(chains.values()) + _REFUSAL, 1)


def _chain(name: str, rule: str, verdict: str) -> str:
    """Later fragments have no ports. Only the rule about ports judges forwards, too."""
    with_ports = "meta l4proto { tcp, udp } ip frag-off & 0x1fff == 0"
    lines = [f"{with_ports} {_copy(rule, COPIED)} {verdict}", f"{with_ports} {verdict}", _copy(rule, HEADER)]
    if rule == "denied_port":
        forwarded = f"ct status dnat {_copy(rule + FORWARDED, COPIED)} {verdict}"
        lines = [forwarded, f"ct status dnat {verdict}", *lines]
    return f"  chain {name} {{\n" + "".join(f"    {line}\n" for line in (*lines, verdict)) + "  }\n"


def _copy(prefix: str, length: int) -> str:
    limit = f"limit rate {PER_SECOND}/second burst {BURST} packets"
    return f'{limit} log prefix "{prefix}" group {GROUP} snaplen {length}'
