"""Parsers of `AERO_L2_ALLOWED_DOMAINS`, `AERO_L2_BLOCKED_DOMAINS`: text → domains, or `BadValue`."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Final

from aero_l2.config.values import BadValue
from aero_l2.web.host import InvalidHost, ascii_name

MAX_DOMAINS: Final = 100_000
_MAX_NAME: Final = 253
# Letters, digits, hyphens and underscores, also at the edges: names that are looked up need not be hosts'.
_LABEL: Final = re.compile(r"[a-z0-9_-]{1,63}", re.ASCII)
_FIX: Final = "write domains like example.com, several with commas; each stands for all names below it, too"


def domains(value: str) -> tuple[str, ...]:
    """Entries in lower case without dots at either end, sorted, each once; empty ones are dropped."""
    found = {domain for entry in value.split(",") if (domain := _domain(entry.strip()))}
    if len(found) > MAX_DOMAINS:
        raise BadValue(f"has {len(found)} domains", f"keep to {MAX_DOMAINS}")
    return tuple(sorted(found))


def _domain(entry: str) -> str:
    name = entry.strip(".").lower()
    if not name:
        return ""
    if not name.isascii():
        raise BadValue(f"has {entry!r}, which is not ASCII", _fix_for(name))
    if name.startswith("*."):
        raise BadValue(
            f"has {entry!r}: there are no patterns, a domain stands for all below it", f"write {name[2:]}"
        )
    if _is_address(name):
        raise BadValue(
            f"has {entry!r}, which is an address or a prefix",
            "list names; AERO_L2_DENIED_CIDRS denies addresses, AERO_L2_DNS_A gives one an allowed name",
        )
    if len(name) > _MAX_NAME or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise BadValue(f"has {entry!r}, which is no domain", _FIX)
    return name


def _fix_for(name: str) -> str:
    """An internationalized name goes over the wire in punycode (RFC 5890), and so it is listed."""
    try:
        return f"write {ascii_name(name)}"
    except InvalidHost:
        return "write it in punycode, as browsers send it: xn--…"


def _is_address(name: str) -> bool:
    try:
        ip_network(name, strict=False)
    except ValueError:
        return False
    return True
