"""`AERO_L2_DNS_SERVERS`: comma-separated addresses, with a port where it is not 53 → typed values."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, NamedTuple

from aero_l2.config.values import BadValue, port_number

DNS_PORT: Final = 53
MAX_SERVERS: Final = 3
"""As many as resolv.conf(5) has (MAXNS): each costs a socket for every question that waits."""
_FIX: Final = "write IP addresses with commas, for example 192.0.2.53,[2001:db8::53]:5353"


class NameServer(NamedTuple):
    """A resolver to ask: `address` in its usual form (IPv6 without brackets, a zone after %)."""

    address: str
    port: int = DNS_PORT


def name_servers(value: str) -> tuple[NameServer, ...]:
    """Entries of `AERO_L2_DNS_SERVERS`, in order: `ip`, `ip:port`, `[ipv6]` or `[ipv6]:port`. BadValue."""
    servers: list[NameServer] = []
    for entry in (part.strip() for part in value.split(",")):
        if not entry:
            continue
        server = _server(entry)
        if server in servers:
            raise BadValue(f"has {server.address} port {server.port} twice", "leave one of them out")
        servers.append(server)
    if len(servers) > MAX_SERVERS:
        raise BadValue(f"has {len(servers)} servers", f"keep to {MAX_SERVERS}")
    if value.strip() and not servers:
        raise BadValue("names no server", _FIX)
    return tuple(servers)


def _server(entry: str) -> NameServer:
    host, port = entry, ""
    if entry.startswith("["):
        host, bracket, port = entry[1:].partition("]")
        if not bracket or (port and not port.startswith(":")) or ":" not in host:
            raise BadValue(f"has {entry!r}, whose brackets hold no IPv6 address", _FIX)
    elif entry.count(":") == 1:
        host, colon, number = entry.partition(":")
        port = colon + number
    address = _address(host, entry)
    if address.is_unspecified or address.is_multicast or address == IPv4Address("255.255.255.255"):
        raise BadValue(f"has {entry!r}: nothing answers at {host}", "name one server's address")
    return NameServer(str(address), port_number(port[1:]) if port else DNS_PORT)


def _address(host: str, entry: str) -> IPv4Address | IPv6Address:
    try:
        return IPv6Address(host) if ":" in host else IPv4Address(host)
    except AddressValueError:
        raise BadValue(f"has {entry!r}, and {host!r} is no IP address", _FIX) from None
