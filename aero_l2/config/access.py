"""Parsers of the settings that say who may open a tunnel: text → value, or `BadValue`."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from aero_l2.auth.modes import AuthMode, parse_mode
from aero_l2.config.values import BadValue
from aero_l2.web.forwarded import Network
from aero_l2.web.host import InvalidHost, normalize_host
from aero_l2.web.origin import InvalidOrigin, normalize_origin

ANY_ORIGIN = "*"


def auth_mode(value: str) -> AuthMode | None:
    """Entry of `AERO_L2_AUTH_MODE`, None where it is left to the secrets."""
    if not value:
        return None
    try:
        return parse_mode(value)
    except ValueError:
        choices = ", ".join(mode.value for mode in AuthMode)
        raise BadValue("is not known", f"choose one of {choices}") from None


def origins(value: str) -> tuple[str, ...]:
    """Origins in normal form (docs/settings.md), `*` as it is; each once, in order."""
    return tuple(dict.fromkeys(_origin(entry) for entry in _entries(value)))


def hosts(value: str) -> tuple[str, ...]:
    """Entries of `AERO_L2_ALLOWED_HOSTS` in lower case; each is a host under http as well as under https."""
    return tuple(dict.fromkeys(_host(entry) for entry in _entries(value)))


def proxies(value: str) -> tuple[Network, ...]:
    """Entries of `AERO_L2_TRUSTED_PROXIES`: prefixes or single addresses, of IPv4 or IPv6."""
    return tuple(dict.fromkeys(_proxy(entry) for entry in _entries(value)))


def _origin(entry: str) -> str:
    if entry == ANY_ORIGIN:
        return entry
    try:
        return normalize_origin(entry)
    except InvalidOrigin as fault:
        raise BadValue(
            f"has {entry!r}, which is no Origin ({fault})",
            "write for example https://example.org",
        ) from None


def _host(entry: str) -> str:
    try:
        for scheme in ("http", "https"):
            normalize_host(entry, scheme)
    except InvalidHost as fault:
        raise BadValue(
            f"has {entry!r}, which is no host ({fault})",
            "write HOST[:PORT] without a scheme, for example example.org",
        ) from None
    return entry.lower()


def _proxy(entry: str) -> Network:
    try:
        meant = ip_network(entry, strict=False)
    except ValueError:
        meant = None
    if meant is None or "%" in entry:
        raise BadValue(
            f"has {entry!r}, which is no prefix and no address", "write for example 10.1.0.0/16 or 10.1.2.3"
        )
    address = entry.partition("/")[0]
    if ip_address(address) == meant.network_address:
        return meant
    raise BadValue(f"has {entry!r}, an address with bits beyond its prefix", f"write {meant} or {address}")


def _entries(value: str) -> Iterator[str]:
    return (entry for part in value.split(",") if (entry := part.strip()))
