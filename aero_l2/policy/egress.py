"""The egress policy of a tunnel as a value: for the packet rules as networks, for DNS as a question."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from typing import Self

from aero_l2.config.egress import ALL_PORTS, PortRange
from aero_l2.config.settings import Settings
from aero_l2.policy.prefixes import ALWAYS_DENIED, SPECIAL_PREFIXES, UNROUTABLE, SpecialPrefix

HOST_ADDRESS = "address of the host"
DENIED_PREFIX = "denied prefix"


class PrefixSet:
    """Whether an address is in any of many prefixes, in logarithmic time."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, networks: Iterable[IPv4Network]) -> None:
        merged = list(collapse_addresses(networks))
        self._firsts = [int(network.network_address) for network in merged]
        self._lasts = [int(network.broadcast_address) for network in merged]

    def __contains__(self, address: IPv4Address) -> bool:
        """Look it up."""
        value = int(address)
        index = bisect_right(self._firsts, value) - 1
        return index >= 0 and value <= self._lasts[index]


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """What a guest may not reach; everything else it may (docs/policy.md).

    Judged in this order: `denied` prefixes; `allowed` ones, exceptions from what follows; the host's own
    addresses; `special` prefixes, in order of precedence for the reason; denied ports; allowed ports. Port
    ranges are inclusive. By default the special-purpose prefixes are denied and TCP port 25, so that a
    tunnel cannot send mail in the host's name.
    """

    denied: tuple[IPv4Network, ...] = ()
    allowed: tuple[IPv4Network, ...] = ()
    special: tuple[SpecialPrefix, ...] = SPECIAL_PREFIXES
    denied_tcp_ports: tuple[PortRange, ...] = ((25, 25),)
    allowed_tcp_ports: tuple[PortRange, ...] = ALL_PORTS
    denied_udp_ports: tuple[PortRange, ...] = ()
    allowed_udp_ports: tuple[PortRange, ...] = ALL_PORTS
    # DNS answers are judged address by address on the event loop.
    _denied: PrefixSet = field(init=False, repr=False, compare=False)
    _allowed: PrefixSet = field(init=False, repr=False, compare=False)
    # (network, mask, reason) as integers.
    _unroutable: tuple[tuple[int, int, str], ...] = field(init=False, repr=False, compare=False)
    _special: tuple[tuple[int, int, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the port ranges and prepare the lookup; ValueError names the range that is none."""
        for ranges in (
            *(self.denied_tcp_ports, self.allowed_tcp_ports),
            *(self.denied_udp_ports, self.allowed_udp_ports),
        ):
            for low, high in ranges:
                if not 1 <= low <= high <= 65535:
                    raise ValueError(f"not a port range: {low}-{high}")
        object.__setattr__(self, "_denied", PrefixSet(self.denied))
        object.__setattr__(self, "_allowed", PrefixSet(self.allowed))
        object.__setattr__(self, "_unroutable", tuple(_rows(UNROUTABLE)))
        object.__setattr__(self, "_special", tuple(_rows(self.special)))

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The policy that the settings ask for."""
        return cls(
            denied=tuple(one for one in settings.denied_cidrs if isinstance(one, IPv4Network)),
            allowed=settings.allowed_cidrs,
            special=ALWAYS_DENIED if settings.allow_private_ips else SPECIAL_PREFIXES,
            denied_tcp_ports=settings.denied_tcp_ports,
            allowed_tcp_ports=settings.allowed_tcp_ports,
            denied_udp_ports=settings.denied_udp_ports,
            allowed_udp_ports=settings.allowed_udp_ports,
        )

    @property
    def special_networks(self) -> tuple[IPv4Network, ...]:
        """The special prefixes for a packet filter: sorted, merged, no overlap (RFC 4632)."""
        return tuple(collapse_addresses(prefix.network for prefix in self.special))

    def denies_address(self, address: IPv4Address, host_addresses: frozenset[IPv4Address]) -> str | None:
        """Say why the guest must not reach `address`; None if it may.

        `host_addresses` are all addresses of the host itself, public ones too: its services listen there.
        """
        if reason := _find(self._unroutable, int(address)):
            return reason
        if address in self._denied:
            return DENIED_PREFIX
        if address in self._allowed:
            return None
        if address in host_addresses:
            return HOST_ADDRESS
        return _find(self._special, int(address))


def _rows(prefixes: Iterable[SpecialPrefix]) -> Iterable[tuple[int, int, str]]:
    for prefix in prefixes:
        yield int(prefix.network.network_address), int(prefix.network.netmask), prefix.reason


def _find(table: tuple[tuple[int, int, str], ...], value: int) -> str | None:
    for network, mask, reason in table:
        if value & mask == network:
            return reason
    return None
