"""Values of settings as text for people: as one would write them, secrets masked."""

from __future__ import annotations

from ipaddress import IPv4Address

from aero_l2.auth.keys import Keys
from aero_l2.auth.modes import AuthMode
from aero_l2.config.forwards import ForwardRule
from aero_l2.config.nameservers import DNS_PORT, NameServer
from aero_l2.config.secret_quirks import SHORT_BYTES
from aero_l2.config.values import ListenAddress


def shown(value: object) -> str:
    """The value of a setting; empty where it is unset."""
    match value:
        case None:
            return ""
        case bool():
            return "1" if value else "0"
        case str():
            return value if value.isprintable() else repr(value)
        case Keys():
            return masked(value)
        case AuthMode():
            return value.value
        case ListenAddress(host, port):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case NameServer(address, port):
            return address if port == DNS_PORT else shown(ListenAddress(address, port))
        case ForwardRule():
            return f"{value.address}:{value.port}={value.host}:{value.target_port}"
        case (int(first), int(last)):
            return str(first) if first == last else f"{first}-{last}"
        case (str(name), IPv4Address() as address):
            return f"{name}={address}"
        case tuple():
            return ",".join(shown(item) for item in value)
    return str(value)


def masked(keys: Keys) -> str:
    """That a secret is set, and how long it is, to tell whether the right one was read.

    Of a secret so short that it can be guessed not even the length.
    """
    if keys.current is None:
        return ""
    size = len(keys.current)
    length = f"{size} bytes" if size >= SHORT_BYTES else f"under {SHORT_BYTES} bytes"
    return f"(set, {length}" + (f", {len(keys.previous)} previous)" if keys.previous else ")")
