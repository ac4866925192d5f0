"""What `aero-l2 policy explain` says is what the kernel does, packet by packet."""

import os
import random
import socket
from ipaddress import IPv4Address, IPv4Network
from itertools import product

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Packet
from support.segment import segment

from aero_l2.config import load
from aero_l2.policy.domains import DomainLists
from aero_l2.policy.egress import EgressPolicy
from aero_l2.policy.explain import Destination, Protocol, explain
from aero_l2.policy.prefixes import SPECIAL_PREFIXES
from aero_l2.session.spec import segment_spec
from netns import nftables
from netns.spec import GATEWAY, GUEST, Forward

HOSTS = frozenset({IPv4Network("45.33.32.10/32"), IPv4Network("151.101.64.0/24")})
SETTINGS = load(
    {
        "AERO_L2_API_KEY": "a-key-0123456789abcdef",
        "AERO_L2_DENIED_CIDRS": "10.100.0.0/16,203.0.112.0/24",
        "AERO_L2_ALLOWED_CIDRS": "10.64.0.0/10,151.101.64.128/25,169.254.169.254,240.0.0.0/6",
        "AERO_L2_DENIED_TCP_PORTS": "85-90",
        "AERO_L2_ALLOWED_TCP_PORTS": "80-99",
        "AERO_L2_DENIED_UDP_PORTS": "85-90",
        "AERO_L2_TCP_FORWARD": "10.0.2.2:80=127.0.0.1:80,10.0.2.2:70=127.0.0.1:80",
        "AERO_L2_UDP_FORWARD": "192.0.2.7:95=45.33.32.10:95",
    }
).settings
PROTOCOLS: tuple[Protocol, ...] = ("tcp", "udp", "ping")
NUMBERS: dict[int, Protocol] = {1: "ping", 6: "tcp", 17: "udp"}
FORWARDED = [Destination(r.address, r.protocol, r.port) for r in SETTINGS.forwards]
SEED = 20


def destinations(source: random.Random, count: int) -> list[Destination]:
    """Addresses around everything that is judged, and a few from anywhere; each at most once a protocol."""
    listed = [*SETTINGS.denied_cidrs, *SETTINGS.allowed_cidrs, *HOSTS]
    prefixes = [*(prefix.network for prefix in SPECIAL_PREFIXES), *listed, IPv4Network("0.0.0.0/0")]
    found = {}
    while len(found) < count:
        prefix = source.choice(prefixes)
        value = int(prefix[0]) + source.randrange(prefix.num_addresses) + source.choice((-1, 0, 0, 1))
        address = IPv4Address(value % 2**32)
        protocol = source.choice(PROTOCOLS)
        port = None if protocol == "ping" else source.randint(75, 105)
        if address == GATEWAY:  # nothing leaves for its own services
            continue
        found[address, protocol] = Destination(address, protocol, port)
    return [*found.values(), *FORWARDED]


def packet(to: Destination, source_port: int) -> Packet:
    layer = {
        "tcp": TCP(sport=source_port, dport=to.port or 0, flags="S"),
        "udp": UDP(sport=source_port, dport=to.port or 0),
        "ping": ICMP(id=source_port),
    }
    return IP(src=str(GUEST), dst=str(to.address)) / layer[to.protocol]


def test_explanations_agree_with_the_kernel_where_names_are_allowed() -> None:
    """Once refused for its name, then with every address opened; DNS stays at the gateway both times."""
    settings = load(
        {
            "AERO_L2_API_KEY": "a-key-0123456789abcdef",
            "AERO_L2_ALLOWED_DOMAINS": "example.com",
            "AERO_L2_ALLOWED_CIDRS": "10.64.0.0/10",
            "AERO_L2_DENIED_TCP_PORTS": "80",
        }
    ).settings
    policy, domains = EgressPolicy.of(settings), DomainLists.of(settings)
    addresses = [IPv4Address(a) for a in ("8.8.8.8", "10.64.0.1", "10.0.0.1", "45.33.32.10", "127.0.0.1")]
    dialled = [
        (Destination(address, protocol, None if protocol == "ping" else port), number)
        for number, (address, protocol, port) in enumerate(
            product(addresses, PROTOCOLS, (53, 80, 443, 853)), 20_000
        )
    ]
    passing = {
        (to.protocol, number)
        for to, number in dialled
        if explain(policy, (), HOSTS, to, domains).allowed and to.port != 53
    }
    with segment(segment_spec(settings), HOSTS, allow_ping=True) as lan:
        _, left = lan.judge(*(packet(to, number) for to, number in dialled))
        assert left == []
        with socket.socket(fileno=os.dup(lan.interior.netlink)) as netlink:
            netlink.settimeout(5)
            nftables.open_addresses(netlink, [(address, 60) for address in addresses])
        _, left = lan.judge(*(packet(to, number) for to, number in dialled), leaving=len(passing))
        assert {(NUMBERS[p[IP].proto], p[ICMP].id if ICMP in p else p[IP].payload.sport) for p in left} == (
            passing
        )
    assert passing


def test_explanations_agree_with_the_kernel() -> None:
    """By the packets that leave: each is told apart by its protocol and its source port or echo id."""
    policy = EgressPolicy.of(SETTINGS)
    forwards = tuple(
        Forward(rule.protocol, rule.address, rule.port, rule.host, rule.target_port)
        for rule in SETTINGS.forwards
        if isinstance(rule.host, IPv4Address)
    )
    dialled = list(enumerate(destinations(random.Random(SEED), 180), 20_000))
    with segment(segment_spec(SETTINGS, forwards), HOSTS, allow_ping=True) as lan:
        for start in range(0, len(dialled), 30):
            some = dialled[start : start + 30]
            verdicts = {
                (to.protocol, number): explain(policy, SETTINGS.forwards, HOSTS, to) for number, to in some
            }
            wanted = {key for key, verdict in verdicts.items() if verdict.allowed}
            _, left = lan.judge(*(packet(to, number) for number, to in some), leaving=len(wanted))
            got = {(NUMBERS[p[IP].proto], p[ICMP].id if ICMP in p else p[IP].payload.sport) for p in left}
            assert got == wanted, [
                (to, verdicts[to.protocol, n]) for n, to in some if (to.protocol, n) in got ^ wanted
            ]
