"""What `aero-l2 policy explain` says is what the kernel does, packet by packet."""

import random
from ipaddress import IPv4Address, IPv4Network

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Packet
from support.segment import segment

from aero_l2.config import load
from aero_l2.policy.egress import EgressPolicy
from aero_l2.policy.explain import Destination, Protocol, explain
from aero_l2.policy.prefixes import SPECIAL_PREFIXES
from aero_l2.session.spec import segment_spec
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
