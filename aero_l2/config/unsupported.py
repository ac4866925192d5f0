"""Variables of the Aero emulator's L2 proxy that this version does not act on (README, what is missing).

Those that would restrict or secure something refuse to start: nobody may believe in a limit that is not
there. Those that change nothing are accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aero_l2.config import values
from aero_l2.config.values import BadValue

# Set to anything: refused.
_WHEN_NOT_BLANK: Final = (
    "AERO_GATEWAY_SESSION_SECRET",
    "SESSION_SECRET",
    "AERO_L2_SESSION_SECRET",
    "AERO_L2_API_KEY",
    "AERO_L2_TOKEN",
    "AERO_L2_JWT_SECRET",
    "AERO_L2_JWT_AUDIENCE",
    "AERO_L2_JWT_ISSUER",
    "AERO_L2_ALLOWED_ORIGINS",
    "ALLOWED_ORIGINS",
    "AERO_L2_ALLOWED_ORIGINS_EXTRA",
    "AERO_L2_ALLOWED_HOSTS",
    "AERO_L2_TRUSTED_PROXIES",
    "AERO_L2_ALLOWED_CIDRS",
    "AERO_L2_DENIED_CIDRS",
    "AERO_L2_ALLOWED_DOMAINS",
    "AERO_L2_BLOCKED_DOMAINS",
    "AERO_L2_CAPTURE_DIR",
    "AERO_L2_TCP_CONNECT_TIMEOUT_MS",
)
# Port lists: blank means "none" there, so being set at all is refused.
_WHEN_SET: Final = (
    "AERO_L2_ALLOWED_TCP_PORTS",
    "AERO_L2_ALLOWED_UDP_PORTS",
    "AERO_L2_DENIED_TCP_PORTS",
    "AERO_L2_DENIED_UDP_PORTS",
)
# 0 is how these are switched off, and off is what this version does.
_WHEN_NOT_ZERO: Final = (
    "AERO_L2_MAX_CONNECTIONS_PER_SESSION",
    "AERO_L2_MAX_TUNNELS_PER_SESSION",
    "AERO_L2_MAX_CONNECTIONS_PER_IP",
    "AERO_L2_MAX_BYTES_PER_CONNECTION",
    "AERO_L2_MAX_FRAMES_PER_SECOND",
    "AERO_L2_PING_INTERVAL_MS",
    "AERO_L2_IDLE_TIMEOUT_MS",
)
_WHEN_TRUE: Final = ("AERO_L2_ALLOW_PRIVATE_IPS", "AERO_L2_TRUST_PROXY", "AERO_L2_TRUST_PROXY_HOST")
# Accepted: buffers the kernel manages itself, a DNS cache there is not, details of captures there are not.
_WITHOUT_EFFECT: Final = (
    "AERO_L2_WS_SEND_BUFFER",
    "AERO_L2_TCP_SEND_BUFFER",
    "AERO_L2_STACK_MAX_BUFFERED_TCP_BYTES_PER_CONN",
    "AERO_L2_STACK_MAX_DNS_CACHE_ENTRIES",
    "AERO_L2_CAPTURE_MAX_BYTES",
    "AERO_L2_CAPTURE_FLUSH_INTERVAL_MS",
)
_SECRETS: Final = frozenset(_WHEN_NOT_BLANK[:6])

NAMES: Final = frozenset(_WHEN_NOT_BLANK + _WHEN_SET + _WHEN_NOT_ZERO + _WHEN_TRUE + _WITHOUT_EFFECT)


def refusals(environment: Mapping[str, str]) -> list[str]:
    """One line for each variable that asks for what this version does not do, or that cannot be read."""
    faults = [_line(name, environment[name]) for name in _WHEN_SET if name in environment]
    for name in NAMES.intersection(environment):
        value = environment[name].strip()
        if value and name not in _WHEN_SET:
            faults += _faults_of(name, value)
    return sorted(faults)


def _faults_of(name: str, value: str) -> list[str]:
    try:
        if name in _WHEN_NOT_BLANK:
            wanted = True
        elif name in _WHEN_TRUE:
            wanted = values.boolean(value)
        else:
            wanted = values.count(value) != 0 and name in _WHEN_NOT_ZERO
    except BadValue as fault:
        return [f"{name}={value!r} {fault}: {fault.fix}"]
    return [_line(name, value)] if wanted else []


def _line(name: str, value: str) -> str:
    shown = "…" if name in _SECRETS and value else repr(value)
    return f"{name}={shown} is not supported by this version: unset it"
