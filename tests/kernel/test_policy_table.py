"""The whole egress policy as a table of packets: every special-purpose prefix, by TCP, UDP and ping, under
every way to open and close prefixes; the counter that moved, what the guest was told, what left.

What is expected stands in support/registry.py, apart from the program's own lists.
"""

import os
import select
import time
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet
from support.registry import HOST, ROUTED_TO_HOST, ROWS, edges, row_of
from support.segment import Segment, segment

from aero_l2.config import load
from aero_l2.session.spec import segment_spec
from netns.namespace import Workshop
from netns.spec import GATEWAY, GUEST

_KEY = {"AERO_L2_API_KEY": "a-key-0123456789abcdef", "AERO_L2_MAX_UDP_FLOWS_PER_TUNNEL": "0"}
_HOSTS = frozenset({HOST, ROUTED_TO_HOST})
_LISTABLE = [row for row in ROWS if not row.fixed]
_EVERY_ROW = ",".join(str(row.network) for row in _LISTABLE)
_TO_GATEWAY = 10_000  # identifiers from here on are those of the pings that say a packet has been judged
_AT_ONCE = 30  # fewer than the queue of a TAP holds
_NAT_CLIENT = "10.0.3.100"


@dataclass(frozen=True)
class Policy:
    """Settings, and what they make of a row."""

    settings: Mapping[str, str]

    def refuses(self, address: IPv4Address) -> str | None:
        """The counter that moves, None where it passes; by the order of judgement in docs/policy.md."""
        row = row_of(address)
        if row.fixed:
            return row.default
        if self._lists("AERO_L2_DENIED_CIDRS", address):
            return "denied_prefix"
        if self._lists("AERO_L2_ALLOWED_CIDRS", address):
            return None
        return row.private if "AERO_L2_ALLOW_PRIVATE_IPS" in self.settings else row.default

    def _lists(self, name: str, address: IPv4Address) -> bool:
        return any(address in IPv4Network(part) for part in self.settings.get(name, "").split(",") if part)


POLICIES = {
    "default": Policy({}),
    "private addresses": Policy({"AERO_L2_ALLOW_PRIVATE_IPS": "1"}),
    "every prefix allowed by name": Policy({"AERO_L2_ALLOWED_CIDRS": _EVERY_ROW}),
    "every prefix denied by name": Policy(
        {"AERO_L2_DENIED_CIDRS": _EVERY_ROW, "AERO_L2_ALLOW_PRIVATE_IPS": "1"}
    ),
    "parts of prefixes": Policy(
        {
            "AERO_L2_ALLOWED_CIDRS": "10.64.0.0/10,169.254.169.254,192.168.0.0/17,198.18.0.0/16,240.0.0.0/5",
            "AERO_L2_DENIED_CIDRS": "10.100.0.0/16,192.168.9.0/24,93.184.216.34",
        }
    ),
    "everything allowed": Policy({"AERO_L2_ALLOWED_CIDRS": "0.0.0.0/0"}),
    "everything denied": Policy({"AERO_L2_DENIED_CIDRS": "0.0.0.0/0", "AERO_L2_ALLOWED_CIDRS": "0.0.0.0/0"}),
}
PROTOCOLS = ("tcp", "udp", "ping")


@dataclass(frozen=True)
class Seen:
    """What one packet led to: counters that moved, what the guest was told, how it left (source address)."""

    counters: dict[str, int]
    told: tuple[str, ...]
    left_from: str | None


def packet(to: IPv4Address, protocol: str, number: int) -> Packet:
    """A packet that is told apart by ``number``."""
    layer = {
        "tcp": TCP(sport=number, dport=80, flags="S"),
        "udp": UDP(sport=number, dport=99),
        "ping": ICMP(id=number),
    }
    return IP(src=str(GUEST), dst=str(to)) / layer[protocol]


class Judge:
    """Sends packets one by one, so that each counter has one packet to blame."""

    def __init__(self, lan: Segment) -> None:
        self._lan = lan
        self._counters = lan.counters()
        self._number = 0

    def judge(self, packets: Mapping[int, Packet]) -> dict[int, Seen]:
        """What became of each, by its number."""
        half = {number: self._send(packet) for number, packet in packets.items()}
        left = self._left(sum(not counters for counters, _ in half.values()))
        return {number: Seen(*half[number], left.get(number)) for number in packets}

    def _send(self, sent: Packet) -> tuple[dict[str, int], tuple[str, ...]]:
        """A ping of the gateway behind it says when it has been judged: one TAP keeps the order."""
        self._number += 1
        self._lan.send(sent)
        self._lan.send(IP(src=str(GUEST), dst=str(GATEWAY)) / ICMP(id=_TO_GATEWAY, seq=self._number))
        told: list[str] = []
        end = time.monotonic() + 10
        while time.monotonic() < end:
            for frame in self._lan.read_guest(0.1):
                if ICMP in frame and frame[ICMP].type == 0 and frame[ICMP].seq == self._number:
                    return self._moved(), tuple(told)
                if ARP not in frame:
                    told.append(_meaning(frame, sent))
        raise AssertionError("the gateway answers no ping")

    def _moved(self) -> dict[str, int]:
        now = self._lan.counters()
        moved = {key: n - self._counters[key] for key, n in now.items() if n != self._counters[key]}
        self._counters = now
        return moved

    def _left(self, count: int) -> dict[int, str]:
        """Source address of what left, by number; waits for ``count`` packets, then a moment for more."""
        found: dict[int, str] = {}
        end = time.monotonic() + 10
        while select.select([self._lan.nat], [], [], 0.05)[0] or (
            len(found) < count and time.monotonic() < end
        ):
            if select.select([self._lan.nat], [], [], 0)[0]:
                frame = Ether(os.read(self._lan.nat, 65536))
                found[_number_of(frame)] = str(frame[IP].src)
        return found


def _number_of(frame: Packet) -> int:
    return int(frame[ICMP].id if ICMP in frame else frame[IP].payload.sport)


def _meaning(reply: Packet, sent: Packet) -> str:
    """rst or prohibited (type 3 code 13), where it is about what was sent and says so in the right name."""
    if TCP in reply and ICMP not in reply and reply[TCP].flags.R:
        about = (reply[IP].src, reply[TCP].sport, reply[TCP].dport)
        return "rst" if about == (sent[IP].dst, 80, sent[TCP].sport) else f"other: {reply.summary()}"
    if ICMP in reply and (reply[ICMP].type, reply[ICMP].code) == (3, 13):
        quoted = IP(bytes(reply[ICMP].payload))
        about = (quoted.src, quoted.dst, quoted.proto, bytes(quoted.payload)[:8])
        whole = IP(bytes(sent))
        meant = (whole.src, whole.dst, whole.proto, bytes(whole.payload)[:8])
        return "prohibited" if about == meant else f"other: {reply.summary()}"
    return f"other: {reply.summary()}"


def wanted(policy: Policy, to: IPv4Address, protocol: str) -> Seen:
    """What the packet has to lead to."""
    counter = policy.refuses(to)
    if counter is None:
        return Seen({}, (), _NAT_CLIENT)
    answer = "rst" if protocol == "tcp" else "prohibited"
    return Seen({counter: 1}, () if row_of(to).silent else (answer,), None)


def answer_without_limit() -> None:
    """The kernel sends a guest six refusals at once and then one a second (icmp(7), icmp_ratemask)."""
    Path("/proc/sys/net/ipv4/icmp_ratemask").write_text("0")


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
def test_packet_to_each_edge_of_each_prefix(name: str) -> None:
    policy = POLICIES[name]
    spec = segment_spec(load(_KEY | policy.settings).settings)
    cases = [(to, protocol) for to in edges() for protocol in PROTOCOLS]
    wrong = []
    with segment(spec, _HOSTS, allow_ping=True) as lan:
        workshop = Workshop(threads=1)
        try:
            workshop.submit_inside(lan.interior.netns, answer_without_limit).result(10)
        finally:
            workshop.close()
        judge = Judge(lan)
        for start in range(0, len(cases), _AT_ONCE):
            some = dict(enumerate(cases[start : start + _AT_ONCE], 1024 + start))
            seen = judge.judge({number: packet(*case, number) for number, case in some.items()})
            for number, case in some.items():
                if seen[number] != wanted(policy, *case):
                    wrong.append((*case, row_of(case[0]).source, seen[number], wanted(policy, *case)))
    assert wrong == [], "\n".join(map(str, wrong))
