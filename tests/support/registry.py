"""The address space as the documents divide it, written down apart from the program that is tested.

Sources: IANA IPv4 Special-Purpose Address Registry (with its "globally reachable" column), the multicast
block, the addresses that clouds serve credentials on, and a tunnel's own networks.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

HOST = IPv4Network("45.33.32.10/32")
ROUTED_TO_HOST = IPv4Network("151.101.64.0/24")


@dataclass(frozen=True)
class Row:
    """A prefix: the counter that a packet to it moves without settings and with ALLOW_PRIVATE_IPS, or None.

    fixed: no list of prefixes changes that. silent: nothing may answer (RFC 1122 section 3.2.2).
    """

    network: IPv4Network
    source: str
    default: str | None
    private: str | None
    fixed: bool = False
    silent: bool = False


def _row(network: str, source: str, default: str | None, private: str | None = None, **flags: bool) -> Row:
    return Row(IPv4Network(network), source, default, private, **flags)


_MARTIAN, _SPECIAL, _GATEWAY, _LAN = "denied_martian", "denied_special", "denied_gateway", "denied_lan"
IANA = (
    _row("0.0.0.0/8", "RFC 791 section 3.2", _MARTIAN, _MARTIAN, fixed=True),
    _row("0.0.0.0/32", "RFC 1122 section 3.2.1.3", _MARTIAN, _MARTIAN, fixed=True),
    _row("10.0.0.0/8", "RFC 1918", _SPECIAL),
    _row("100.64.0.0/10", "RFC 6598", _SPECIAL),
    _row("127.0.0.0/8", "RFC 1122 section 3.2.1.3", _MARTIAN, _MARTIAN, fixed=True),
    _row("169.254.0.0/16", "RFC 3927", _SPECIAL),
    _row("172.16.0.0/12", "RFC 1918", _SPECIAL),
    _row("192.0.0.0/24", "RFC 6890 section 2.1", _SPECIAL),
    _row("192.0.0.0/29", "RFC 7335", _SPECIAL),
    _row("192.0.0.8/32", "RFC 7600", _SPECIAL),
    _row("192.0.0.9/32", "RFC 7723", _SPECIAL),  # globally reachable, but the whole /24 is denied
    _row("192.0.0.10/32", "RFC 8155", _SPECIAL),  # the same
    _row("192.0.0.170/31", "RFC 8880", _SPECIAL),
    _row("192.0.2.0/24", "RFC 5737", _SPECIAL),
    _row("192.31.196.0/24", "RFC 7535, globally reachable", None),
    _row("192.52.193.0/24", "RFC 7450, globally reachable", None),
    _row("192.88.99.0/24", "RFC 7526", _SPECIAL),
    _row("192.168.0.0/16", "RFC 1918", _SPECIAL),
    _row("192.175.48.0/24", "RFC 7534, globally reachable", None),
    _row("198.18.0.0/15", "RFC 2544", _SPECIAL),
    _row("198.51.100.0/24", "RFC 5737", _SPECIAL),
    _row("203.0.113.0/24", "RFC 5737", _SPECIAL),
    _row("240.0.0.0/4", "RFC 1112 section 4", _SPECIAL, _SPECIAL),
    _row("255.255.255.255/32", "RFC 8190, RFC 919 section 7", _GATEWAY, _GATEWAY, fixed=True, silent=True),
)
MULTICAST = _row("224.0.0.0/4", "RFC 1112 section 4", _MARTIAN, _MARTIAN, fixed=True, silent=True)
METADATA = (
    _row("169.254.169.254/32", "AWS, Azure, Google and others", _SPECIAL, _SPECIAL),
    _row("168.63.129.16/32", "Azure", _SPECIAL, _SPECIAL),
    _row("100.100.100.200/32", "Alibaba Cloud", _SPECIAL, _SPECIAL),
)
TUNNEL = (
    _row("10.0.2.0/24", "the guest's LAN", _LAN, _LAN, fixed=True),
    _row("10.0.2.255/32", "its broadcast address", _GATEWAY, _GATEWAY, fixed=True, silent=True),
    _row("10.0.3.0/24", "the NAT's network", "denied_nat", "denied_nat", fixed=True),
    _row("10.0.3.100/32", "the namespace's address there", _GATEWAY, _GATEWAY, fixed=True),
    _row("10.0.3.255/32", "its broadcast address", _GATEWAY, _GATEWAY, fixed=True, silent=True),
)
OF_HOST = tuple(
    Row(network, "the host itself", "denied_host", "denied_host") for network in (HOST, ROUTED_TO_HOST)
)
ROWS = (*IANA, MULTICAST, *METADATA, *TUNNEL, *OF_HOST)
_PUBLIC = Row(IPv4Network("0.0.0.0/0"), "the internet", None, None)


def row_of(address: IPv4Address) -> Row:
    """The narrowest row that holds the address."""
    holding = [row for row in ROWS if address in row.network]
    return max(holding, key=lambda row: row.network.prefixlen, default=_PUBLIC)


def edges() -> list[IPv4Address]:
    """First and last address of every row, the one before and the one after; the gateway's own left out."""
    around = {int(row.network[end]) + by for row in ROWS for end, by in ((0, -1), (0, 0), (-1, 0), (-1, 1))}
    return [IPv4Address(value) for value in sorted(around) if 0 <= value < 2**32]
