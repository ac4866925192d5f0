"""How a request reached us: client, host and scheme, where reverse proxies report them (RFC 7239). Pure.

Headers say what their writer likes. Which of it counts:

- Without trust, nothing: the client is the peer.
- With trust and no prefixes of proxies, the first value of each; `Forwarded` comes before `X-Forwarded-*`.
  Right only where the proxy replaces what the client sent.
- With prefixes, nothing from a peer outside of them. From one inside, a list is read from its right end,
  where the peer has written; what stands left of a trusted address was written by that one. The leftmost
  entry that a trusted proxy wrote names the client. If that entry is no address (`unknown`, obfuscated,
  malformed, blank), the proxy that wrote it counts as the client: whoever causes doubt shares the limits of
  that one address, and nobody can choose an address.
  Host and scheme come from the same entry, else from the next to its right that has them. `X-Forwarded-Host`
  and `-Proto` are counted from their right end by as many proxies as `X-Forwarded-For` shows to be ours (the
  first value, if there are fewer).
- With prefixes, and with `Forwarded` and `X-Forwarded-*` together: the proxies may write only one of the two,
  and the client the other. Where they contradict each other on the client, it is the peer; on the host, it is
  malformed; on the scheme, it is not known.

What no trusted proxy writes, the client does: the proxies have to set, or remove, each of these headers, and
several in a row have to write the same family.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import Final, Protocol

from aero_l2.web.host import InvalidHost, normalize_host
from aero_l2.web.origin import sole_origin
from aero_l2.web.rfc7239 import MAX_HOPS, Address, Element, address_of, parse_forwarded, parse_node

Network = IPv4Network | IPv6Network

# Proxies report the scheme of an upgrade either way.
_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_MAPPED: Final = IPv6Network("::ffff:0:0/96")


@dataclass(frozen=True, slots=True)
class ProxyTrust:
    """Which headers count: `client` those on the client's address, `host` those on host and scheme.

    With `proxies`, both only from peers in these prefixes. IPv4-mapped prefixes stand for the IPv4 ones.
    """

    client: bool = False
    host: bool = False
    proxies: tuple[Network, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "proxies", tuple(map(_unmapped, self.proxies)))

    def includes(self, address: Address) -> bool:
        """Whether this is the address of a trusted proxy."""
        return any(address in prefix for prefix in self.proxies)


def _unmapped(network: Network) -> Network:
    if isinstance(network, IPv4Network) or not network.subnet_of(_MAPPED):
        return network
    return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))


class HeaderLines(Protocol):
    """The header fields of a request."""

    def get_all(self, name: str) -> list[str]:
        """The values of all fields of that name, whatever its case, in their order."""


@dataclass(frozen=True, slots=True)
class Via:
    """How a request reached us.

    Attributes:
        client: address as text, without port, brackets and zone; IPv4 if it is IPv4-mapped.
        host: the effective Host, as it was written; None if it is missing or malformed.
        host_malformed: several Host headers, or a forwarded host that is empty, unreadable or contradictory.
        scheme: the effective one, `http` or `https`.
    """

    client: str
    host: str | None
    host_malformed: bool
    scheme: str


@dataclass(frozen=True, slots=True)
class _Report:
    """What one of the two families of headers says; None: nothing. A host that cannot be read is empty."""

    client: Address | None = None
    host: str | None = None
    scheme: str | None = None


def via(peer: str, headers: HeaderLines, trust: ProxyTrust) -> Via:
    """Client, host and scheme of a request from the address `peer`. Never raises; linear in the headers.

    The host is that of the sole Host header where none is forwarded; the scheme that of the sole valid
    Origin, or else http.
    """
    address = address_of(peer)
    report = _Report()
    if trust.client or trust.host:
        report = _reported(address, headers, trust)
    client = report.client if trust.client and report.client is not None else address
    forwarded_host = report.host if trust.host else None
    scheme = report.scheme if trust.host else None
    hosts = headers.get_all("Host")
    host = forwarded_host if forwarded_host is not None else "".join(hosts[:1])
    malformed = len(hosts) > 1 or forwarded_host == ""
    return Via(
        client=peer if client is None else str(client),
        host=None if malformed else host or None,
        host_malformed=malformed,
        scheme=scheme or _scheme_of_origin(headers),
    )


def _scheme_of_origin(headers: HeaderLines) -> str:
    origin = sole_origin(headers.get_all("Origin"))
    return "https" if origin is not None and origin.startswith("https:") else "http"


def _reported(peer: Address | None, headers: HeaderLines, trust: ProxyTrust) -> _Report:
    if not trust.proxies:
        return _preferred(_first_forwarded(headers), _first_x_forwarded(headers))
    if peer is None or not trust.includes(peer):
        return _Report()
    return _agreed(_chained_forwarded(peer, headers, trust), _chained_x_forwarded(peer, headers, trust), peer)


# --- Without prefixes: the first values, RFC 7239 before the others -----------------------------------------


def _preferred(one: _Report, other: _Report) -> _Report:
    return _Report(
        other.client if one.client is None else one.client,
        other.host if one.host is None else one.host,
        other.scheme if one.scheme is None else one.scheme,
    )


def _first_forwarded(headers: HeaderLines) -> _Report:
    elements = _elements(headers)
    if not elements:
        return _Report()
    return _Report(_node_of(elements[0]), _host_in(elements), _scheme_in(elements))


def _first_x_forwarded(headers: HeaderLines) -> _Report:
    node, host, scheme = (_first_value(headers, f"X-Forwarded-{name}") for name in ("For", "Host", "Proto"))
    return _Report(parse_node(node or ""), host, _SCHEMES.get((scheme or "").lower()))


# --- With prefixes: what the outermost trusted proxy wrote --------------------------------------------------


def _chained_forwarded(peer: Address, headers: HeaderLines, trust: ProxyTrust) -> _Report:
    elements = _elements(headers)
    if not elements:
        return _Report()
    client, start = _walk([_node_of(element) for element in elements], peer, trust)
    return _Report(client, _host_in(elements[start:]), _scheme_in(elements[start:]))


def _chained_x_forwarded(peer: Address, headers: HeaderLines, trust: ProxyTrust) -> _Report:
    nodes, hosts, schemes = (
        _last_values(headers, f"X-Forwarded-{name}") for name in ("For", "Host", "Proto")
    )
    client, proxies = None, 1
    if nodes:
        client, start = _walk([parse_node(node) for node in nodes], peer, trust)
        proxies = len(nodes) - start
    return _Report(
        client,
        hosts[-proxies:][0] if hosts else None,
        _SCHEMES.get(schemes[-proxies:][0].lower()) if schemes else None,
    )


def _walk(nodes: Sequence[Address | None], peer: Address, trust: ProxyTrust) -> tuple[Address, int]:
    """The client, and the index of the leftmost node that a trusted proxy wrote; `nodes` is not empty."""
    start, writer = len(nodes) - 1, peer
    while start and (node := nodes[start]) is not None and trust.includes(node):
        writer = node
        start -= 1
    return nodes[start] or writer, start


def _agreed(one: _Report, other: _Report, peer: Address) -> _Report:
    either = _preferred(one, other)
    client, host, scheme = either.client, either.host, either.scheme
    if None not in (one.client, other.client) and one.client != other.client:
        client = peer
    if None not in (one.scheme, other.scheme) and one.scheme != other.scheme:
        scheme = None
    if one.host is not None and other.host is not None:
        host = host if _is_same_host(one.host, other.host, scheme or "http") else ""
    return _Report(client, host, scheme)


def _is_same_host(one: str, other: str, scheme: str) -> bool:
    try:
        return normalize_host(one, scheme) == normalize_host(other, scheme)
    except InvalidHost:
        return False


# --- Reading ------------------------------------------------------------------------------------------------


def _elements(headers: HeaderLines) -> list[Element | None]:
    """The elements of `Forwarded`; none if it is missing or blank."""
    lines = headers.get_all("Forwarded")
    return parse_forwarded(lines) if any(map(str.strip, lines)) else []


def _first_value(headers: HeaderLines, name: str) -> str | None:
    """The first value of a list header; None if it is missing or blank."""
    values = ",".join(headers.get_all(name))
    return values.partition(",")[0].strip() if values.strip() else None


def _last_values(headers: HeaderLines, name: str) -> list[str]:
    """The last values of a list header, at most `MAX_HOPS`; none if it is missing or blank."""
    values = ",".join(headers.get_all(name))
    return [value.strip() for value in values.rsplit(",", MAX_HOPS)[-MAX_HOPS:]] if values.strip() else []


def _node_of(element: Element | None) -> Address | None:
    return parse_node(element.get("for", "")) if element is not None else None


def _host_in(elements: Sequence[Element | None]) -> str | None:
    """The first host; empty if there is something unreadable before it."""
    for element in elements:
        if element is None:
            return ""
        if "host" in element:
            return element["host"]
    return None


def _scheme_in(elements: Sequence[Element | None]) -> str | None:
    for element in elements:
        if element is None:
            return None
        if "proto" in element:
            return _SCHEMES.get(element["proto"].lower())
    return None


def client_group(address: str) -> str:
    """Whom limits count: an IPv4 address itself, of IPv6 its /64. Never raises.

    A host chooses freely within its /64 (RFC 4291 §2.5.1). IPv4-mapped addresses count as IPv4; what is no
    address counts as itself.
    """
    parsed = address_of(address)
    if isinstance(parsed, IPv6Address):
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return address if parsed is None else str(parsed)
