"""Names that mean something only where the proxy runs, and are therefore not asked for outside. Pure.

The zones of RFC 6303 and of the IANA registry "Locally-Served DNS Zones" that begin there (RFC 7793, 8375,
9462), the special-use names of RFC 6761, 6762 and 7686, `internal` (reserved by ICANN for private use), and
names of one label. To a resolver of the operator's network they would be questions about that network.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.message import QueryMessage
from dns.rdatatype import RdataType

from aero_l2.services.dns.message import Query, reply_to

# How long a guest may believe it, in seconds: a setting can make the name known.
DENIAL_TTL: Final = 60

_SPECIAL: Final = ("localhost", "local", "internal", "home.arpa", "onion", "resolver.arpa")
_IPV4: Final = (
    "0",
    "10",
    "127",
    "254.169",
    "168.192",
    "2.0.192",
    "100.51.198",
    "113.0.203",
    "255.255.255.255",
    *(f"{number}.172" for number in range(16, 32)),
    *(f"{number}.100" for number in range(64, 128)),
)
# Unspecified, loopback, unique local (RFC 6303 has only the half of fc00::/7 that is in use), link-local,
# documentation.
_IPV6: Final = (
    ".".join(["0"] * 32),
    ".".join(["1", *["0"] * 31]),
    "c.f",
    "d.f",
    *(f"{digit}.e.f" for digit in "89ab"),
    "8.b.d.0.1.0.0.2",
)
# What a validating guest asks of every top-level domain (RFC 4035 section 5); no host's name.
_OF_EVERY_ZONE: Final = (RdataType.DS, RdataType.DNSKEY)


def _zones() -> Iterator[dns.name.Name]:
    for text in _SPECIAL:
        yield dns.name.from_text(text)
    for text in _IPV4:
        yield dns.name.from_text(f"{text}.in-addr.arpa")
    for text in _IPV6:
        yield dns.name.from_text(f"{text}.ip6.arpa")


# Each in our own case, whatever case it is looked up in.
_ZONES: Final = {zone: zone for zone in _zones()}
_DEPTHS: Final = sorted({len(zone.labels) for zone in _ZONES})


def owner_of_denial(name: dns.name.Name, rdtype: RdataType) -> dns.name.Name | None:
    """Say which zone denies `name`, if it is one not to ask for; None if it may be asked.

    It is above `name`: a zone's own name does not exist either.
    """
    for depth in _DEPTHS:
        if depth > len(name.labels):
            break
        zone = _ZONES.get(dns.name.Name(name.labels[-depth:]))
        if zone is not None:
            return zone if depth < len(name.labels) else zone.parent()
    single = len(name.labels) == 2
    return dns.name.root if single and rdtype not in _OF_EVERY_ZONE else None


def denial(query: Query, owner: dns.name.Name) -> QueryMessage:
    """NXDOMAIN with the SOA that lets the guest remember it for `DENIAL_TTL` (RFC 2308 section 3)."""
    reply = reply_to(query, dns.rcode.NXDOMAIN)
    reply.authority = [_soa(owner)]
    return reply


@lru_cache(maxsize=256)
def _soa(owner: dns.name.Name) -> dns.rrset.RRset:
    """The SOA of RFC 6303 section 3, with our times. Callers must not change it."""
    text = f"{owner} nobody.invalid. 1 3600 1200 604800 {DENIAL_TTL}"
    return dns.rrset.from_rdata(
        owner, DENIAL_TTL, dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.SOA, text)
    )
