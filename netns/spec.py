"""What a tunnel's namespace has to be: plain values, checked where they are made.

The server sends these values to netd, which builds them again from the wire and so checks each a second
time. No text of the server ever becomes a rule or a command line.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Any, Literal, get_args

from netns.errors import MessageError

Protocol = Literal["tcp", "udp"]

LAN = IPv4Network("10.0.2.0/24")
GATEWAY = IPv4Address("10.0.2.2")
GUEST = IPv4Address("10.0.2.15")
GATEWAY_MAC = "52:55:0a:00:02:02"
NAT_NETWORK = IPv4Network("10.0.3.0/24")
NAT_HOST = IPv4Address("10.0.3.2")
"""slirp4netns's own address; where host loopback is on, it stands for the host's 127.0.0.1."""
NAT_HOST_MAC = "52:55:0a:00:03:02"
"""libslirp derives its MAC from its address: 52:55, then the four bytes."""
NAT_CLIENT = IPv4Address("10.0.3.100")
NAT_CLIENT_MAC = "52:55:0a:00:03:64"
LOOPBACK = IPv4Address("127.0.0.1")
REDIRECTED_DNS_PORT = 1053
"""Of the gateway, for DNS that the guest sent elsewhere; nobody can dial it."""

MAX_PREFIXES = 512
MAX_PORT_RANGES = 256
MAX_FORWARDS = 256
MAX_FLOWS = 1_000_000
MAX_IDLE_S = 86_400
MAX_BYTES = 4_000_000_000
MIN_BURST = 65_536
"""The largest frame has to fit."""

PortRange = tuple[int, int]
"""First and last port, both included, 1..65535."""
ALL_PORTS: tuple[PortRange, ...] = ((1, 65535),)


@dataclass(frozen=True, slots=True)
class Forward:
    """The guest's packets to ``address:port`` go to ``target:target_port`` (127.0.0.1 is the host's)."""

    protocol: Protocol
    address: IPv4Address
    port: int
    target: IPv4Address
    target_port: int

    def __post_init__(self) -> None:
        if self.protocol not in get_args(Protocol):
            raise MessageError(f"forward: unknown protocol {self.protocol!r}")
        _port("forward port", self.port)
        _port("forward target port", self.target_port)
        for address in (self.address, self.target):
            if address.is_multicast or address.is_unspecified or address == IPv4Address("255.255.255.255"):
                raise MessageError(f"forward: {address} is not a unicast address")
        if self.target.is_loopback and self.target != LOOPBACK:
            raise MessageError(f"forward: {self.target} is a loopback address other than 127.0.0.1")
        if self.protocol == "udp" and self.target == LOOPBACK and self.target_port in (67, 69):
            raise MessageError(f"forward: the NAT process itself answers UDP port {self.target_port}")
        if self.address == GATEWAY and self.port in (53, 67):
            raise MessageError(f"forward: {self.address}:{self.port} is the gateway's own service")

    @property
    def needs_host_loopback(self) -> bool:
        """Whether the NAT process has to be able to reach the host's 127.0.0.1."""
        return self.target == LOOPBACK


@dataclass(frozen=True, slots=True)
class SegmentSpec:
    """Everything netd needs to make one tunnel's namespace.

    Destinations are judged by ``denied`` prefixes first, then by ``allowed`` ones, which are exceptions from
    what follows: the host's own addresses and ``special`` prefixes. The NAT's network and loopback are
    refused whatever they say. Ports have to be among the allowed and not among the denied ones. Limits are
    flows at a time, 0 = none. ``max_bytes_per_second`` holds for each direction, 0 = none; ``bytes_burst``
    may pass at once. ``only_named``: only addresses that DNS has handed out are within reach;
    ``redirect_dns``: DNS to any other server comes to the gateway, encrypted DNS is refused. ``audit``: flows
    are accounted for, and refused packets told of (`netns.auditrules`).
    """

    denied: tuple[IPv4Network, ...] = ()
    allowed: tuple[IPv4Network, ...] = ()
    special: tuple[IPv4Network, ...] = ()
    denied_tcp_ports: tuple[PortRange, ...] = ()
    allowed_tcp_ports: tuple[PortRange, ...] = ALL_PORTS
    denied_udp_ports: tuple[PortRange, ...] = ()
    allowed_udp_ports: tuple[PortRange, ...] = ALL_PORTS
    forwards: tuple[Forward, ...] = ()
    max_tcp_flows: int = 1024
    max_udp_flows: int = 256
    udp_idle_s: int = 60
    max_bytes_per_second: int = 0
    bytes_burst: int = MIN_BURST
    max_new_flows_per_s: int = 500
    only_named: bool = False
    redirect_dns: bool = False
    audit: bool = False

    def __post_init__(self) -> None:
        prefixes = max(len(self.denied), len(self.allowed), len(self.special))
        if prefixes > MAX_PREFIXES or len(self.forwards) > MAX_FORWARDS:
            raise MessageError("segment: too many prefixes or forwards")
        for ranges in (
            *(self.denied_tcp_ports, self.allowed_tcp_ports),
            *(self.denied_udp_ports, self.allowed_udp_ports),
        ):
            if len(ranges) > MAX_PORT_RANGES:
                raise MessageError("segment: too many port ranges")
            for first, last in ranges:
                if _port("listed port", first) > _port("listed port", last):
                    raise MessageError(f"segment: port range {first}-{last} is backwards")
        _within("max_tcp_flows", self.max_tcp_flows, 0, MAX_FLOWS)
        _within("max_udp_flows", self.max_udp_flows, 0, MAX_FLOWS)
        _within("max_new_flows_per_s", self.max_new_flows_per_s, 0, MAX_FLOWS)
        _within("udp_idle_s", self.udp_idle_s, 1, MAX_IDLE_S)
        _within("max_bytes_per_second", self.max_bytes_per_second, 0, MAX_BYTES)
        _within("bytes_burst", self.bytes_burst, MIN_BURST, MAX_BYTES)
        dialled = {(f.protocol, f.address, f.port) for f in self.forwards}
        if len(dialled) != len(self.forwards):
            raise MessageError("segment: two forwards for the same address and port")

    @property
    def needs_host_loopback(self) -> bool:
        """Whether any forward goes to the host's 127.0.0.1."""
        return any(forward.needs_host_loopback for forward in self.forwards)

    def to_message(self) -> dict[str, Any]:
        """The value as JSON-ready fields; `from_message` is its inverse."""
        return {
            **{name: [str(network) for network in getattr(self, name)] for name in _PREFIX_FIELDS},
            **{name: [list(ports) for ports in getattr(self, name)] for name in _PORT_FIELDS},
            "forwards": [
                [f.protocol, str(f.address), f.port, str(f.target), f.target_port] for f in self.forwards
            ],
            "max_tcp_flows": self.max_tcp_flows,
            "max_udp_flows": self.max_udp_flows,
            "udp_idle_s": self.udp_idle_s,
            "max_bytes_per_second": self.max_bytes_per_second,
            "bytes_burst": self.bytes_burst,
            "max_new_flows_per_s": self.max_new_flows_per_s,
            "only_named": self.only_named,
            "redirect_dns": self.redirect_dns,
            "audit": self.audit,
        }

    @classmethod
    def from_message(cls, fields: Mapping[str, Any]) -> "SegmentSpec":
        """Build and check the value from untrusted fields. Raises MessageError, nothing else."""
        if set(fields) != set(cls.__slots__):
            raise MessageError("segment: fields missing or unknown")
        try:
            return cls(
                denied=_prefixes(fields["denied"]),
                allowed=_prefixes(fields["allowed"]),
                special=_prefixes(fields["special"]),
                denied_tcp_ports=_ranges(fields["denied_tcp_ports"]),
                allowed_tcp_ports=_ranges(fields["allowed_tcp_ports"]),
                denied_udp_ports=_ranges(fields["denied_udp_ports"]),
                allowed_udp_ports=_ranges(fields["allowed_udp_ports"]),
                forwards=tuple(_forward(f) for f in _list(fields["forwards"])),
                max_tcp_flows=_integer(fields["max_tcp_flows"]),
                max_udp_flows=_integer(fields["max_udp_flows"]),
                udp_idle_s=_integer(fields["udp_idle_s"]),
                max_bytes_per_second=_integer(fields["max_bytes_per_second"]),
                bytes_burst=_integer(fields["bytes_burst"]),
                max_new_flows_per_s=_integer(fields["max_new_flows_per_s"]),
                only_named=_boolean(fields["only_named"]),
                redirect_dns=_boolean(fields["redirect_dns"]),
                audit=_boolean(fields["audit"]),
            )
        except (AddressValueError, ValueError, TypeError) as error:
            raise MessageError(f"segment: {error}") from error


_PREFIX_FIELDS = ("denied", "allowed", "special")
_PORT_FIELDS = ("denied_tcp_ports", "allowed_tcp_ports", "denied_udp_ports", "allowed_udp_ports")


def _port(what: str, value: int) -> int:
    return _within(what, value, 1, 65535)


def _within(what: str, value: int, low: int, high: int) -> int:
    if not low <= _integer(value) <= high:
        raise MessageError(f"{what}: {value} is not within {low}..{high}")
    return value


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise MessageError(f"not a whole number: {value!r}")
    return value


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise MessageError(f"neither true nor false: {value!r}")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise MessageError(f"not a text: {value!r}")
    return value


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise MessageError(f"not a list: {value!r}")
    return value


def _prefixes(value: Any) -> tuple[IPv4Network, ...]:
    return tuple(IPv4Network(_text(item)) for item in _list(value))


def _ranges(value: Any) -> tuple[PortRange, ...]:
    return tuple(_range(item) for item in _list(value))


def _range(value: Any) -> PortRange:
    first, last = _list(value)
    return _integer(first), _integer(last)


def _forward(value: Any) -> Forward:
    protocol, address, port, target, target_port = _list(value)
    return Forward(
        protocol=_text(protocol),  # type: ignore[arg-type]  # checked by Forward itself
        address=IPv4Address(_text(address)),
        port=_integer(port),
        target=IPv4Address(_text(target)),
        target_port=_integer(target_port),
    )
