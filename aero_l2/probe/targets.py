"""Where the probe goes through the tunnel, as given with --target. Pure."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import Final
from urllib.parse import urlsplit

from aero_l2.client.errors import printable
from aero_l2.config.values import BadValue, host_name

HTTP_PORT: Final = 80
_EXAMPLES: Final = (
    "tcp://HOST:PORT, tcp-echo://HOST:PORT, tcp-discard://HOST:PORT, udp-echo://HOST:PORT or "
    "http://HOST[:PORT]/PATH"
)
_REQUEST_TARGET: Final = re.compile(r"[\x21-\x7e]+")


class BadTarget(ValueError):
    """What was given is no target; the text says why."""


class Scheme(enum.Enum):
    """How a target is spoken to."""

    TCP = "tcp"
    """Connect, nothing more."""
    TCP_ECHO = "tcp-echo"
    """What is sent comes back (RFC 862)."""
    TCP_DISCARD = "tcp-discard"
    """What is sent is taken (RFC 863)."""
    HTTP = "http"
    """GET, and a status below 400."""
    UDP_ECHO = "udp-echo"
    """A datagram that comes back (RFC 862)."""


CARRIES: Final = frozenset((Scheme.HTTP, Scheme.TCP_ECHO, Scheme.TCP_DISCARD))
"""What throughput can be measured with."""


@dataclass(frozen=True, slots=True, repr=False)
class ProbeTarget:
    """A place. host: an address, or a name for the tunnel's DNS. path: with the query; it may be secret."""

    scheme: Scheme
    host: IPv4Address | str
    port: int
    path: str = "/"

    @property
    def authority(self) -> str:
        """Host and port, as in a Host field."""
        default = self.scheme is Scheme.HTTP and self.port == HTTP_PORT
        return str(self.host) if default else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        path = self.path.partition("?")[0] if self.scheme is Scheme.HTTP else ""
        return f"{self.scheme.value}://{self.authority}{path}"

    __repr__ = __str__


def parse_target(text: str) -> ProbeTarget:
    """Read what was given. Raises BadTarget."""
    shown = printable(text.partition("?")[0]) if "@" not in text else "the target"
    try:
        parts = urlsplit(text)
        scheme, host, port = Scheme(parts.scheme), parts.hostname or "", parts.port
    except ValueError:
        raise BadTarget(f"{shown} is no target: give {_EXAMPLES}") from None
    if parts.username is not None or parts.fragment or not host:
        raise BadTarget(f"{shown} is no target: give {_EXAMPLES}, without user and fragment")
    if scheme is not Scheme.HTTP and (parts.path not in ("", "/") or parts.query):
        raise BadTarget(f"{shown} has a path, which {scheme.value} has not")
    if port is None and scheme is Scheme.HTTP:
        port = HTTP_PORT
    if not port:
        raise BadTarget(f"{shown} has no port: give {scheme.value}://HOST:PORT")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not _REQUEST_TARGET.fullmatch(path):
        raise BadTarget(f"{shown} has characters in its path that have to be percent-encoded")
    return ProbeTarget(scheme, _host(host, shown), port, path)


def _host(text: str, shown: str) -> IPv4Address | str:
    if ":" in text:
        raise BadTarget(f"{shown} is an IPv6 address, and guests have no IPv6")
    try:
        return IPv4Address(text)
    except AddressValueError:
        pass
    try:
        return host_name(text)
    except BadValue as fault:
        raise BadTarget(f"{shown} {printable(str(fault))}: {fault.fix}") from None
