"""What to say about listening: where, who may connect, and why it cannot be done. Pure."""

from __future__ import annotations

import errno

from aero_l2.config import Settings


def listen_advice(error: OSError) -> str:
    """Why an address cannot be listened on, and what to do."""
    advice = {
        errno.EADDRINUSE: "another program listens there; end it, or choose another port",
        errno.EACCES: "ports below net.ipv4.ip_unprivileged_port_start (1024) are for root, which the server "
        "never is; choose a higher one, and let what ends TLS in front of it have the low one",
        errno.EADDRNOTAVAIL: "no interface of this machine has that address",
    }
    return advice.get(error.errno or 0, error.strerror or str(error))


def describe_origins(settings: Settings) -> str:
    """Which pages may connect, for the log."""
    rules = settings.origin_rules
    if rules.open:
        return "not checked"
    if rules.any_valid:
        return "any valid one"
    return ",".join(sorted(rules.allowed)) or "same host"


def shown_address(settings: Settings) -> str:
    """Where to listen, as one writes it."""
    return shown(settings.listen)


def shown(address: tuple[str, int]) -> str:
    """Host and port, as one writes them."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
