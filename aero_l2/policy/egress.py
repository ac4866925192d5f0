"""The egress policy of a tunnel as a value: for the packet rules as networks, for DNS as a question."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, collapse_addresses

from aero_l2.policy.prefixes import SPECIAL_PREFIXES, SpecialPrefix

PortRange = tuple[int, int]

HOST_ADDRESS = "address of the host"


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """What a guest may not reach; everything else it may.

    `denied_prefixes` in order of precedence for the reason; port ranges are inclusive. By default the
    special-purpose prefixes and TCP port 25, so that a tunnel cannot send mail in the host's name.
    """

    denied_prefixes: tuple[SpecialPrefix, ...] = SPECIAL_PREFIXES
    denied_tcp_ports: tuple[PortRange, ...] = ((25, 25),)
    denied_udp_ports: tuple[PortRange, ...] = ()
    # (network, mask, reason) as integers: DNS answers are judged address by address on the event loop.
    _table: tuple[tuple[int, int, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the port ranges and prepare the lookup; ValueError names the range that is none."""
        for low, high in (*self.denied_tcp_ports, *self.denied_udp_ports):
            if not 0 <= low <= high <= 65535:
                raise ValueError(f"not a port range: {low}-{high}")
        object.__setattr__(self, "_table", tuple(_rows(self.denied_prefixes)))

    @property
    def denied_networks(self) -> tuple[IPv4Network, ...]:
        """The denied prefixes for a packet filter: sorted, merged, no overlap (RFC 4632)."""
        return tuple(collapse_addresses(prefix.network for prefix in self.denied_prefixes))

    def denies_address(self, address: IPv4Address, host_addresses: frozenset[IPv4Address]) -> str | None:
        """Say why the guest must not reach `address`; None if it may.

        `host_addresses` are all addresses of the host itself, public ones too: its services listen there.
        """
        if address in host_addresses:
            return HOST_ADDRESS
        value = int(address)
        for network, mask, reason in self._table:
            if value & mask == network:
                return reason
        return None


def _rows(prefixes: Iterable[SpecialPrefix]) -> Iterable[tuple[int, int, str]]:
    for prefix in prefixes:
        yield int(prefix.network.network_address), int(prefix.network.netmask), prefix.reason
