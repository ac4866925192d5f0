"""The special-purpose IPv4 prefixes, once, each with the document that sets it apart.

Source: IANA IPv4 Special-Purpose Address Registry (RFC 6890, RFC 8190) and docs/SPECIFICATION.md.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network

from aero_l2.config.egress import METADATA


@dataclass(frozen=True, slots=True)
class SpecialPrefix:
    """A prefix that is not the public internet.

    `always` marks what stays out of reach even where private addresses are allowed, `unroutable` what not
    even an allowed prefix opens, because no packet of a guest can get there.
    """

    network: IPv4Network
    use: str
    source: str
    always: bool = False
    unroutable: bool = False

    @property
    def reason(self) -> str:
        """Why an address in here is refused, for a log line or an explanation: `private-use (RFC 1918)`."""
        return f"{self.use} ({self.source})"


def _prefix(
    network: str, use: str, source: str, *, always: bool = False, unroutable: bool = False
) -> SpecialPrefix:
    return SpecialPrefix(IPv4Network(network), use, source, always or unroutable, unroutable)


# The narrower prefix stands first: the first one that holds an address names the reason.
SPECIAL_PREFIXES: tuple[SpecialPrefix, ...] = (
    *(_prefix(f"{address}/32", "cloud metadata", whose, always=True) for address, whose in METADATA.items()),
    _prefix("10.0.3.0/24", "the network of the NAT process", "docs/SPECIFICATION.md", unroutable=True),
    _prefix("10.0.2.0/24", "the LAN of the guest", "docs/SPECIFICATION.md", unroutable=True),
    _prefix("0.0.0.0/8", "this network", "RFC 791 section 3.2", unroutable=True),
    _prefix("10.0.0.0/8", "private use", "RFC 1918"),
    _prefix("100.64.0.0/10", "shared address space", "RFC 6598"),
    _prefix("127.0.0.0/8", "loopback", "RFC 1122 section 3.2.1.3", unroutable=True),
    _prefix("169.254.0.0/16", "link local", "RFC 3927"),
    _prefix("172.16.0.0/12", "private use", "RFC 1918"),
    _prefix("192.0.0.0/24", "IETF protocol assignments", "RFC 6890 section 2.1"),
    _prefix("192.0.2.0/24", "documentation TEST-NET-1", "RFC 5737"),
    _prefix("192.88.99.0/24", "deprecated 6to4 relay anycast", "RFC 7526"),
    _prefix("192.168.0.0/16", "private use", "RFC 1918"),
    _prefix("198.18.0.0/15", "benchmarking", "RFC 2544"),
    _prefix("198.51.100.0/24", "documentation TEST-NET-2", "RFC 5737"),
    _prefix("203.0.113.0/24", "documentation TEST-NET-3", "RFC 5737"),
    _prefix("224.0.0.0/4", "multicast", "RFC 1112 section 4", unroutable=True),
    _prefix("255.255.255.255/32", "limited broadcast", "RFC 919", unroutable=True),
    _prefix("240.0.0.0/4", "reserved", "RFC 1112 section 4", always=True),
)

ALWAYS_DENIED: tuple[SpecialPrefix, ...] = tuple(prefix for prefix in SPECIAL_PREFIXES if prefix.always)
UNROUTABLE: tuple[SpecialPrefix, ...] = tuple(prefix for prefix in SPECIAL_PREFIXES if prefix.unroutable)
