"""Settings judged together: what is accepted, and yet may not be what was meant or leaves a door open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address
from typing import Any, Final

from aero_l2.auth.modes import AuthMode
from aero_l2.config import idle
from aero_l2.config.access import ANY_ORIGIN
from aero_l2.config.egress import METADATA
from aero_l2.config.given import Given
from aero_l2.config.show import shown
from aero_l2.config.values import ListenAddress
from aero_l2.web.forwarded import Network, ProxyTrust

NO_AUTH_PAIR: Final = {"open": "AERO_L2_OPEN", "insecure_allow_no_auth": "AERO_L2_INSECURE_ALLOW_NO_AUTH"}
_WIDE: Final = 8
"""Shorter prefixes are wider than any private network."""
_ONE_OR_NO: Final = frozenset(("1", "0", "false", "no", "off"))
_BELIEVES: Final = "believes whoever connects: name your proxies"
_OR_ELSE: Final = "or see to it that only they connect, and replace what clients send"


def about(fields: Mapping[str, Any], given: Mapping[str, Given]) -> Iterator[str]:
    """A line for each; a field that is missing had a fault of its own, and nothing follows from it."""
    yield from _no_auth(fields, given)
    yield from _nearly_one(given)
    yield from _blind_trust(fields, given)
    yield from _idle_proxies(fields, given)
    yield from _literal_wildcards(fields)
    yield from _wide_openings(fields, given)
    yield from _seconds_meant(fields, given)
    yield from _endless_captures(fields, given)
    yield from idle.about(fields, given)


def _no_auth(fields: Mapping[str, Any], given: Mapping[str, Given]) -> Iterator[str]:
    if fields.get("auth_mode") is not AuthMode.NONE:
        return
    if "auth_mode" in given:
        reason = f"{given['auth_mode'].subject} is none"
    else:
        reason = " and ".join(NO_AUTH_PAIR.values()) + " are 1"
    yield f"nobody is asked for credentials: {reason}"
    listen: ListenAddress | None = fields.get("listen")
    if listen is not None and not _is_loopback(listen.host):
        yield (
            f"whoever reaches {shown(listen)} can use this host's network without credentials: set a secret "
            "(`aero-l2 token key` makes one), or listen on 127.0.0.1"
        )
    is_same_host_rule = fields.get("allowed_origins") == () and fields.get("open") is False
    if is_same_host_rule and fields.get("allowed_hosts") == ():
        yield (
            "any web page can open tunnels once its own name points to this address (DNS rebinding), which "
            "the same-host rule does not notice: set AERO_L2_ALLOWED_HOSTS to the names this is reached under"
        )


def _is_loopback(host: str) -> bool:
    return host == "localhost" or ip_address(host).is_loopback


def _nearly_one(given: Mapping[str, Given]) -> Iterator[str]:
    """Where only exactly 1 counts, `true` is no fault and does nothing: worth a line."""
    for field in NO_AUTH_PAIR:
        if field in given and given[field].value.lower() not in _ONE_OR_NO:
            yield f"{given[field].subject} is not exactly 1, so it counts as unset"


def _blind_trust(fields: Mapping[str, Any], given: Mapping[str, Given]) -> Iterator[str]:
    """Without the proxies' addresses, or with all there are, whoever connects is believed."""
    trusting = [field for field in ("trust_proxy", "trust_proxy_host") if fields.get(field)]
    proxies: tuple[Network, ...] | None = fields.get("trusted_proxies")
    if proxies is None or not trusting:
        return
    if not proxies:
        for field in trusting:
            yield f"{given[field].subject} {_BELIEVES} in AERO_L2_TRUSTED_PROXIES, {_OR_ELSE}"
    for prefix in _of_everybody(proxies):
        subject = given["trusted_proxies"].subject
        yield f"{subject} has all of {prefix}, so it {_BELIEVES} alone, {_OR_ELSE}"


def _of_everybody(proxies: tuple[Network, ...]) -> list[Network]:
    """Which of 0.0.0.0/0 and ::/0 these come to."""
    effective = ProxyTrust(proxies=proxies).proxies
    merged: list[Network] = [
        *collapse_addresses(one for one in effective if isinstance(one, IPv4Network)),
        *collapse_addresses(one for one in effective if isinstance(one, IPv6Network)),
    ]
    return [prefix for prefix in merged if prefix.prefixlen == 0]


def _idle_proxies(fields: Mapping[str, Any], given: Mapping[str, Given]) -> Iterator[str]:
    is_off = fields.get("trust_proxy") is False and fields.get("trust_proxy_host") is False
    if fields.get("trusted_proxies") and is_off:
        proxies, switch = given["trusted_proxies"], given["trust_proxy"]
        yield f"{proxies.subject} has no effect: {switch.assignment()} turns it off"


def _literal_wildcards(fields: Mapping[str, Any]) -> Iterator[str]:
    """The URL standard admits an asterisk in a host, so such an entry is valid, and matches nobody."""
    for field, name in (
        ("allowed_origins", "AERO_L2_ALLOWED_ORIGINS"),
        ("allowed_hosts", "AERO_L2_ALLOWED_HOSTS"),
    ):
        for entry in fields.get(field, ()):
            if "*" in entry and (field, entry) != ("allowed_origins", ANY_ORIGIN):
                yield f"{name}: {entry!r} is taken literally, there are no patterns"


_NEVER_SO_SHORT: Final = ("idle_timeout_ms", "send_stall_timeout_ms", "drain_ms", "udp_flow_idle_timeout_ms")


def _seconds_meant(fields: Mapping[str, Any], given: Mapping[str, Given]) -> Iterator[str]:
    for field in _NEVER_SO_SHORT:
        if field in given and 0 < fields.get(field, 0) < 1000:
            yield f"{given[field].assignment()} is in milliseconds: less than a second"


def _endless_captures(fields: Mapping[str, Any], given: Mapping[str, Given]) -> Iterator[str]:
    """Whoever may open tunnels decides how much of the disk they take."""
    if not fields.get("capture_dir") or fields.get("capture_on_demand"):
        return
    limits = {
        "capture_max_files": "AERO_L2_CAPTURE_MAX_FILES",
        "capture_max_bytes": "AERO_L2_CAPTURE_MAX_BYTES",
    }
    missing = [name for field, name in limits.items() if fields.get(field) == 0]
    if missing:
        yield f"{given['capture_dir'].subject} may fill its disk: set {' and '.join(missing)}"


_RESERVED: Final = IPv4Network("240.0.0.0/4")


def _wide_openings(fields: Mapping[str, Any], given: Mapping[str, Given]) -> Iterator[str]:
    """An allowed prefix opens whatever is in it, also what nobody thinks of who writes 0.0.0.0/0."""
    denied = [prefix for prefix in fields.get("denied_cidrs", ()) if isinstance(prefix, IPv4Network)]
    prefixes: tuple[IPv4Network, ...] = fields.get("allowed_cidrs", ())
    for prefix in prefixes:
        if any(prefix.subnet_of(other) for other in denied):
            continue
        metadata = [str(a) for a in METADATA if a in prefix and not any(a in other for other in denied)]
        opened = [f"cloud metadata ({', '.join(metadata)}), which hands out credentials"] if metadata else []
        if prefix.prefixlen < _WIDE and not prefix.subnet_of(_RESERVED):
            opened += ["all private networks and addresses of this host in it"]
        if opened:
            yield (
                f"{given['allowed_cidrs'].subject}: {prefix} opens {', and '.join(opened)}; the internet "
                "needs no entry: write only the networks that are meant, for example 192.168.50.0/24"
            )
