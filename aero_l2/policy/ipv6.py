"""IPv6, of which guests have none: what is special about an address, for explanations. Pure.

Source: IANA IPv6 Special-Purpose Address Registry (RFC 6890, RFC 8190) and docs/SPECIFICATION.md. A tunnel
drops every IPv6 frame, so no packet rule is made of this table.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv6Address, IPv6Network
from typing import Final

# The narrower prefix stands first: the first one that holds an address names the reason.
SPECIAL_PREFIXES: Final[tuple[tuple[IPv6Network, str], ...]] = tuple(
    (IPv6Network(network), reason)
    for network, reason in (
        ("fd00:ec2::254/128", "cloud metadata (AWS)"),
        ("::/128", "unspecified address (RFC 4291 section 2.5.2)"),
        ("::1/128", "loopback (RFC 4291 section 2.5.3)"),
        ("::ffff:0:0/96", "IPv4-mapped (RFC 4291 section 2.5.5.2)"),
        ("64:ff9b::/96", "IPv4/IPv6 translation (RFC 6052)"),
        ("64:ff9b:1::/48", "local IPv4/IPv6 translation (RFC 8215)"),
        ("100::/64", "discard only (RFC 6666)"),
        ("2001::/23", "IETF protocol assignments (RFC 2928)"),
        ("2001:db8::/32", "documentation (RFC 3849)"),
        ("2002::/16", "6to4 (RFC 3056)"),
        ("3fff::/20", "documentation (RFC 9637)"),
        ("5f00::/16", "segment routing SIDs (RFC 9602)"),
        ("fc00::/7", "unique local (RFC 4193)"),
        ("fe80::/10", "link local (RFC 4291 section 2.5.6)"),
        ("fec0::/10", "deprecated site local (RFC 3879)"),
        ("ff00::/8", "multicast (RFC 4291 section 2.7)"),
    )
)


def why_denied(address: IPv6Address, denied: Iterable[IPv6Network] = ()) -> str:
    """Why a guest cannot reach `address`, in words. `denied` are the prefixes of AERO_L2_DENIED_CIDRS."""
    for prefix in denied:
        if address in prefix:
            return f"guests have no IPv6; {prefix} is a denied prefix (AERO_L2_DENIED_CIDRS), too"
    special = (f"; {network} is {reason}" for network, reason in SPECIAL_PREFIXES if address in network)
    return "guests have no IPv6" + next(special, "")
