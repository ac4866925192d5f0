"""`AERO_L2_TCP_FORWARD`, `AERO_L2_UDP_FORWARD`, `AERO_L2_DNS_A`: comma-separated entries → typed values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address
from typing import Literal

from aero_l2.config.values import BadValue, host_name, port_number

Protocol = Literal["tcp", "udp"]

GATEWAY = IPv4Address("10.0.2.2")
MAX_FORWARDS = 256
MAX_DNS_RECORDS = 1024
_LAN = IPv4Network("10.0.2.0/24")
_NAT_NETWORK = IPv4Network("10.0.3.0/24")
_OWN_PORTS = frozenset((53, 67))
_NAT_PORTS = frozenset((67, 69))
_HOST_LOOPBACK = IPv4Address("127.0.0.1")
_LOOPBACK = IPv4Network("127.0.0.0/8")
_NOT_DIALLED = tuple(IPv4Network(n) for n in ("0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4"))
_FORWARD_FIX = "write IP:PORT=HOST:PORT, several with commas, for example 10.0.2.2:8080=127.0.0.1:80"
_DNS_FIX = "write NAME=IPV4, several with commas, for example files.lan=10.0.2.2"


@dataclass(frozen=True, slots=True)
class ForwardRule:
    """What the guest sends to `address:port` goes to `host:target_port` instead.

    `host` is an address, 127.0.0.1 meaning the host's own loopback, or a name looked up when a tunnel starts.
    """

    protocol: Protocol
    address: IPv4Address
    port: int
    host: IPv4Address | str
    target_port: int


def tcp_forwards(value: str) -> tuple[ForwardRule, ...]:
    """Entries of `AERO_L2_TCP_FORWARD`."""
    return _forwards("tcp", value)


def udp_forwards(value: str) -> tuple[ForwardRule, ...]:
    """Entries of `AERO_L2_UDP_FORWARD`."""
    return _forwards("udp", value)


def dns_records(value: str) -> tuple[tuple[str, IPv4Address], ...]:
    """Entries of `AERO_L2_DNS_A` as (name, address), names in lower case without a final dot, in order."""
    records: list[tuple[str, IPv4Address]] = []
    for entry in _entries(value):
        name, equals, address = (part.strip() for part in entry.partition("="))
        if not equals:
            raise BadValue(f"has {entry!r} without '='", _DNS_FIX)
        record = (host_name(name), _ipv4(address, entry, _DNS_FIX))
        if record in records:
            raise BadValue(f"has {entry!r} twice", "leave one of them out")
        records.append(record)
    if len(records) > MAX_DNS_RECORDS:
        raise BadValue(f"has {len(records)} entries", f"keep to {MAX_DNS_RECORDS}")
    return tuple(records)


def _forwards(protocol: Protocol, value: str) -> tuple[ForwardRule, ...]:
    rules: dict[tuple[IPv4Address, int], ForwardRule] = {}
    for entry in _entries(value):
        rule = _forward(protocol, entry)
        if (rule.address, rule.port) in rules:
            raise BadValue(f"forwards {rule.address}:{rule.port} twice", "leave one of the entries out")
        rules[rule.address, rule.port] = rule
    return tuple(rules.values())


def _forward(protocol: Protocol, entry: str) -> ForwardRule:
    left, equals, right = (part.strip() for part in entry.partition("="))
    if not equals:
        raise BadValue(f"has {entry!r} without '='", _FORWARD_FIX)
    address_text, port = _host_port(left, entry)
    address = _ipv4(address_text, entry, _FORWARD_FIX)
    if _is_within(address, *_NOT_DIALLED, _LOOPBACK):
        raise BadValue(f"has {entry!r}: a guest cannot dial {address}", "use an address a guest can dial")
    if _is_within(address, _LAN) and address != GATEWAY:
        raise BadValue(
            f"has {entry!r}: {address} is on the guest's own LAN, where nobody but the gateway answers",
            f"use {GATEWAY} or an address outside {_LAN} on the left",
        )
    if _is_within(address, _NAT_NETWORK):
        raise BadValue(
            f"has {entry!r}: {_NAT_NETWORK} is the proxy's own, behind the gateway",
            f"use {GATEWAY} or an address outside {_NAT_NETWORK} on the left",
        )
    if address == GATEWAY and port in _OWN_PORTS:
        raise BadValue(
            f"has {entry!r}: {address}:{port} is the gateway's own DNS or DHCP",
            "use another port on the left",
        )
    host, target_port = _host_port(right, entry)
    if protocol == "udp" and host == str(_HOST_LOOPBACK) and target_port in _NAT_PORTS:
        raise BadValue(
            f"has {entry!r}: the NAT process itself answers UDP port {target_port} on the way to {host}",
            "let the service listen on another port",
        )
    return ForwardRule(protocol, address, port, _target(host, entry), target_port)


def _target(host: str, entry: str) -> IPv4Address | str:
    try:
        address = IPv4Address(host)
    except AddressValueError:
        return host_name(host)
    if _is_within(address, _LOOPBACK) and address != _HOST_LOOPBACK:
        raise BadValue(
            f"has {entry!r}: the loopback address {address} is not 127.0.0.1",
            "let the service listen on 127.0.0.1 and forward to that",
        )
    if _is_within(address, *_NOT_DIALLED):
        raise BadValue(
            f"has {entry!r}: nothing answers at {address}", "name one host's address as the target"
        )
    return address


def _host_port(value: str, entry: str) -> tuple[str, int]:
    host, colon, port = value.rpartition(":")
    if not colon or not host:
        raise BadValue(f"has {entry!r}, and {value!r} in it has no port", _FORWARD_FIX)
    if host.startswith("[") or _is_ipv6(host) or _is_ipv6(value):
        raise BadValue(f"has {entry!r}: IPv6 cannot be forwarded", "use an IPv4 address")
    return host, port_number(port)


def _ipv4(value: str, entry: str, fix: str) -> IPv4Address:
    try:
        return IPv4Address(value)
    except AddressValueError:
        raise BadValue(f"has {entry!r}, and {value!r} is no IPv4 address", fix) from None


def _is_ipv6(value: str) -> bool:
    try:
        IPv6Address(value)
    except AddressValueError:
        return False
    return True


def _is_within(address: IPv4Address, *networks: IPv4Network) -> bool:
    return any(address in network for network in networks)


def _entries(value: str) -> Iterator[str]:
    return (entry for part in value.split(",") if (entry := part.strip()))
