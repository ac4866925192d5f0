"""Parsers of the settings that say what a guest may reach: text → prefixes and port ranges, or `BadValue`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
)
from typing import Final

from aero_l2.config.values import BadValue, port_number

PortRange = tuple[int, int]
"""First and last port, both included."""

Prefix = IPv4Network | IPv6Network

ALL_PORTS: Final[tuple[PortRange, ...]] = ((1, 65535),)
MAX_PREFIXES: Final = 512
MAX_PORT_RANGES: Final = 256
UNREACHABLE: Final = {
    IPv4Network("0.0.0.0/8"): "means the sender itself, and has no route",
    IPv4Network("10.0.2.0/24"): "is the guest's own LAN, where nobody but the gateway answers",
    IPv4Network("10.0.3.0/24"): "is the proxy's own, behind the gateway",
    IPv4Network("127.0.0.0/8"): "is loopback, which no route leads to; a forward to 127.0.0.1 does",
    IPv4Network("224.0.0.0/4"): "is multicast, which the NAT does not carry",
    IPv4Network("255.255.255.255/32"): "is broadcast, which the NAT does not carry",
}
"""What no prefix can open, and why."""
METADATA: Final = {
    IPv4Address("169.254.169.254"): "AWS, Azure, Google and others",
    IPv4Address("168.63.129.16"): "Azure platform address",
    IPv4Address("100.100.100.200"): "Alibaba Cloud",
}
"""Where clouds hand out the credentials of a machine, and which."""
_PREFIX_FIX: Final = "write prefixes or addresses, several with commas, for example 192.0.2.0/24"
_PORT_FIX: Final = "write ports from 1 to 65535 or ranges like 8000-8100, several with commas"
_LENGTH = re.compile(r"[0-9]{1,2}", re.ASCII)
_LENGTH6 = re.compile(r"[0-9]{1,3}", re.ASCII)


def denied_prefixes(value: str) -> tuple[Prefix, ...]:
    """Entries of `AERO_L2_DENIED_CIDRS`, sorted and merged, those of IPv4 first.

    IPv6 is accepted, since what a list of the host's addresses asks for holds: guests have none.
    """
    listed = [_prefix6(entry) or _prefix(entry) for entry in _entries(value)]
    merged = _merged_prefixes(one for one in listed if isinstance(one, IPv4Network))
    return merged + tuple(collapse_addresses(one for one in listed if isinstance(one, IPv6Network)))


def allowed_prefixes(value: str) -> tuple[IPv4Network, ...]:
    """Entries of `AERO_L2_ALLOWED_CIDRS`, sorted and merged; none of them is wholly out of reach."""
    return _merged_prefixes(_reachable(_prefix(entry), entry) for entry in _entries(value))


def ports(value: str) -> tuple[PortRange, ...]:
    """Ports and ranges of a port list, sorted and merged; blank is no port at all."""
    merged: list[PortRange] = []
    for first, last in sorted(_port_range(entry) for entry in _entries(value)):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    if len(merged) > MAX_PORT_RANGES:
        raise BadValue(f"has {len(merged)} ranges of ports", f"keep to {MAX_PORT_RANGES}")
    return tuple(merged)


def _merged_prefixes(prefixes: Iterable[IPv4Network]) -> tuple[IPv4Network, ...]:
    merged = tuple(collapse_addresses(prefixes))
    if len(merged) > MAX_PREFIXES:
        raise BadValue(f"has {len(merged)} prefixes", f"keep to {MAX_PREFIXES}")
    return merged


def _prefix(entry: str) -> IPv4Network:
    text, slash, length = entry.partition("/")
    if _is_ipv6(text):
        raise BadValue(f"has {entry!r}: guests have no IPv6", "leave it out")
    try:
        address = IPv4Address(text)
    except AddressValueError:
        raise BadValue(f"has {entry!r}, which is no prefix and no address", _PREFIX_FIX) from None
    if slash and not (_LENGTH.fullmatch(length) and int(length) <= 32):
        raise BadValue(f"has {entry!r}, whose prefix length is not 0 to 32", _PREFIX_FIX)
    meant = IPv4Network((address, int(length) if slash else 32), strict=False)
    if meant.network_address != address:
        raise BadValue(
            f"has {entry!r}, an address with bits beyond its prefix", f"write {meant} or {address}"
        )
    return meant


def _prefix6(entry: str) -> IPv6Network | None:
    """The entry as an IPv6 prefix, None where it is none."""
    text, slash, length = entry.partition("/")
    if not _is_ipv6(text):
        return None
    if "%" in text or (slash and not (_LENGTH6.fullmatch(length) and int(length) <= 128)):
        raise BadValue(f"has {entry!r}, which is no IPv6 prefix", "write one like 2001:db8::/32")
    if (mapped := IPv6Address(text).ipv4_mapped) is not None:
        raise BadValue(f"has {entry!r}, an IPv4 address in IPv6 form", f"write {mapped}")
    meant = IPv6Network((text, int(length) if slash else 128), strict=False)
    if meant.network_address != IPv6Address(text):
        raise BadValue(f"has {entry!r}, an address with bits beyond its prefix", f"write {meant} or {text}")
    return meant


def _reachable(prefix: IPv4Network, entry: str) -> IPv4Network:
    for network, reason in UNREACHABLE.items():
        if prefix.subnet_of(network):
            raise BadValue(f"has {entry!r}, which nothing can open: {network} {reason}", "leave it out")
    return prefix


def _port_range(entry: str) -> PortRange:
    first, dash, last = (part.strip() for part in entry.partition("-"))
    try:
        low = port_number(first)
        high = port_number(last) if dash else low
    except BadValue:
        raise BadValue(f"has {entry!r} for a port", _PORT_FIX) from None
    if low > high:
        raise BadValue(f"has {entry!r}, a range backwards", f"write {high}-{low}")
    return low, high


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True


def _entries(value: str) -> Iterator[str]:
    return (entry for part in value.split(",") if (entry := part.strip()))
