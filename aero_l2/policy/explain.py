"""Why a guest may reach a destination or not, in the order of docs/policy.md. Pure; for people to read.

The packet rules of a tunnel judge by themselves; tests compare both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final, Literal

from aero_l2.config.egress import ALL_PORTS, PortRange
from aero_l2.config.forwards import GATEWAY, ForwardRule
from aero_l2.policy.domains import DomainLists
from aero_l2.policy.egress import EgressPolicy
from aero_l2.policy.prefixes import UNROUTABLE

Protocol = Literal["tcp", "udp", "ping"]
OPENERS: Final = "AERO_L2_ALLOWED_CIDRS opens it"
_NO_LISTS: Final = DomainLists()
_REDIRECTED: Final = "with a list of domains, DNS to any server goes to the gateway's own"
_ANY_ADDRESS: Final = IPv4Address("192.0.2.1")
"""Stands for an address that is not known yet."""
_DNS_PORT: Final = 53
_ENCRYPTED_DNS_PORT: Final = 853


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether it is within reach, and the rule and setting that decide or would change it.

    depends: allowed, but only under a condition that `reason` names.
    """

    allowed: bool
    reason: str
    depends: bool = False

    def __str__(self) -> str:
        """One line for people."""
        word = "depends" if self.depends else "allowed" if self.allowed else "denied"
        return f"{word}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Destination:
    """What a guest dials. Without a port, the port lists are not judged; ping has none."""

    address: IPv4Address
    protocol: Protocol
    port: int | None = None


def explain(
    policy: EgressPolicy,
    forwards: Sequence[ForwardRule],
    hosts: Iterable[IPv4Network],
    destination: Destination,
    domains: DomainLists = _NO_LISTS,
) -> Verdict:
    """Judge `destination`. `hosts` are the prefixes that are the host itself.

    Whether the host permits ping sockets is not known here: ping is judged as if it did.
    """
    for forward in forwards:
        if (forward.protocol, forward.address, forward.port) == (
            *(destination.protocol, destination.address),
            destination.port,
        ):
            setting = f"AERO_L2_{forward.protocol.upper()}_FORWARD"
            passes = Verdict(True, f"forward to {forward.host}:{forward.target_port} ({setting})")
            return _by_port(policy, destination) or passes
    if destination.address == GATEWAY:
        return _at_gateway(destination)
    if _is_redirected(domains, destination):
        return Verdict(True, _REDIRECTED)
    address = _by_address(policy, hosts, destination.address)
    if not address.allowed:
        return address
    refused = _by_port(policy, destination) or _by_encrypted_dns(domains, destination)
    return refused or (_while_named(address) if domains.only_named else address)


def explain_name(
    policy: EgressPolicy, domains: DomainLists, name: str, protocol: Protocol, port: int | None = None
) -> Verdict:
    """Judge a name, in lower case without a final dot, and the port that is dialled at its addresses."""
    labels = name.encode().split(b".")
    if blocked := domains.blocking(labels):
        return Verdict(False, f"{blocked} is a blocked domain (AERO_L2_BLOCKED_DOMAINS)")
    allowed = domains.allowing(labels)
    if domains.only_named and allowed is None:
        return Verdict(False, "the name is of no allowed domain (AERO_L2_ALLOWED_DOMAINS)")
    listed = f"{allowed} is an allowed domain (AERO_L2_ALLOWED_DOMAINS)"
    said = listed if allowed else "no list denies the name"
    anywhere = Destination(_ANY_ADDRESS, protocol, port)
    if _is_redirected(domains, anywhere):
        return Verdict(True, f"{said}, and {_REDIRECTED}")
    refused = _by_port(policy, anywhere) or _by_encrypted_dns(domains, anywhere)
    return refused or Verdict(True, f"{said}; its addresses are judged one by one")


def _is_redirected(domains: DomainLists, destination: Destination) -> bool:
    if not domains.own_dns or destination.protocol == "ping" or destination.port != _DNS_PORT:
        return False
    return not any(destination.address in special.network for special in UNROUTABLE)


def _by_encrypted_dns(domains: DomainLists, destination: Destination) -> Verdict | None:
    if domains.own_dns and destination.port == _ENCRYPTED_DNS_PORT:
        return Verdict(False, "with a list of domains, encrypted DNS (port 853) is denied")
    return None


def _while_named(address: Verdict) -> Verdict:
    return Verdict(
        True,
        f"{address.reason}, but it is within reach only while DNS has handed it out for an allowed name "
        "(AERO_L2_ALLOWED_DOMAINS)",
        depends=True,
    )


def _at_gateway(destination: Destination) -> Verdict:
    services = {("tcp", 53): "DNS", ("udp", 53): "DNS", ("udp", 67): "DHCP", ("ping", None): "echo"}
    service = services.get((destination.protocol, destination.port))
    if service:
        return Verdict(True, f"the gateway's own {service}, whatever the lists say")
    return Verdict(False, "the gateway offers DNS, DHCP and echo only; a forward opens a port of it")


def _by_address(policy: EgressPolicy, hosts: Iterable[IPv4Network], address: IPv4Address) -> Verdict:
    for special in UNROUTABLE:
        if address in special.network:
            return Verdict(False, f"{special.network} is {special.reason}; no prefix opens it")
    if prefix := _holding(policy.denied, address):
        return Verdict(False, f"{prefix} is a denied prefix (AERO_L2_DENIED_CIDRS)")
    if prefix := _holding(policy.allowed, address):
        return Verdict(True, f"{prefix} is an allowed prefix (AERO_L2_ALLOWED_CIDRS)")
    if prefix := _holding(hosts, address):
        return Verdict(False, f"{prefix} is the host itself; {OPENERS}")
    for special in policy.special:
        if address in special.network:
            also = "" if special.always else ", AERO_L2_ALLOW_PRIVATE_IPS all that are private"
            return Verdict(False, f"{special.network} is {special.reason}; {OPENERS}{also}")
    return Verdict(True, "no rule denies it")


def _by_port(policy: EgressPolicy, destination: Destination) -> Verdict | None:
    """Why the port is refused; None if it is not."""
    if destination.protocol == "ping":
        if policy.allowed_udp_ports == ALL_PORTS:
            return None
        return Verdict(False, "ping has no port, and AERO_L2_ALLOWED_UDP_PORTS is not all of them")
    is_tcp = destination.protocol == "tcp"
    denied = policy.denied_tcp_ports if is_tcp else policy.denied_udp_ports
    allowed = policy.allowed_tcp_ports if is_tcp else policy.allowed_udp_ports
    name, port = destination.protocol.upper(), destination.port
    if port is None:
        return None
    if _listed(denied, port):
        return Verdict(False, f"{name} port {port} is denied (AERO_L2_DENIED_{name}_PORTS)")
    if not _listed(allowed, port):
        return Verdict(False, f"{name} port {port} is not among the allowed (AERO_L2_ALLOWED_{name}_PORTS)")
    return None


def _listed(ranges: Iterable[PortRange], port: int) -> bool:
    return any(first <= port <= last for first, last in ranges)


def _holding(prefixes: Iterable[IPv4Network], address: IPv4Address) -> IPv4Network | None:
    return next((prefix for prefix in prefixes if address in prefix), None)
