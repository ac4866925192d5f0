"""The Host of a request: what is one, its normal form, and whether it is ours (docs/SPECIFICATION.md). Pure.

Hosts parse as the WHATWG URL standard says, by ada-url, behind stricter checks of our own: what browsers
never send is refused before it reaches the parser.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final

import ada_url

from aero_l2.web.echo import echo

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
MAX_PORT: Final = 65535

_PRINTABLE = re.compile(r"[!-~]*")
_NO_HOST = re.compile(r"[@?#%,\\{}`/]")
_AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]+)(:.*)?")
_PORT = re.compile(r":0*([1-9][0-9]{0,4})")


class InvalidHost(ValueError):
    """The text is no `host[:port]`; the message says why, without repeating it."""


def normalize_host(text: str, scheme: str) -> str:
    """`host[:port]` in lower case, as browsers write it: without the default port of `scheme`.

    IPv4 in any form that browsers take (`0x7f.1`) becomes dotted decimal, IPv6 its RFC 5952 form in brackets.
    A dot at the end of a name stays: with and without it are two hosts, as for a browser. Punycode is a name
    like any other; the standard has IDNA judge only names that it converts.

    Args:
        text: printable ASCII without user, path, query, fragment, percent sign, comma, backslash, `{`, `}`
            and backtick; a colon wants a port from 1 to 65535 behind it.
        scheme: `http` or `https`.

    Raises:
        InvalidHost: anything else, and what the WHATWG URL standard (§3.5, host parsing) refuses.
    """
    if scheme not in DEFAULT_PORTS:
        raise InvalidHost("the scheme is neither http nor https")
    if not _PRINTABLE.fullmatch(text):
        raise InvalidHost(
            "only printable ASCII without spaces can be a host (write it as browsers send it, in punycode)"
        )
    if found := _NO_HOST.search(text):
        raise InvalidHost(f"a host does not contain {found[0]}")
    authority = _AUTHORITY.fullmatch(text)
    if authority is None:
        raise InvalidHost("this is not host or host:port (IPv6 goes in brackets)")
    name = _parse_host(authority[1])
    port = DEFAULT_PORTS[scheme] if authority[2] is None else _parse_port(authority[2])
    return name if port == DEFAULT_PORTS[scheme] else f"{name}:{port}"


def ascii_name(text: str) -> str:
    """The name as it is looked up: internationalized labels in punycode (UTS #46, as browsers do).

    Raises InvalidHost where there is no such form.
    """
    if _NO_HOST.search(text) or ":" in text:
        raise InvalidHost("this is no name")
    return _parse_host(text)


def _parse_port(text: str) -> int:
    digits = _PORT.fullmatch(text)
    if digits is None or int(digits[1]) > MAX_PORT:
        raise InvalidHost(f"the port behind the colon is not a number from 1 to {MAX_PORT}")
    return int(digits[1])


def _parse_host(text: str) -> str:
    try:
        name = ada_url.URL(f"http://{text}/").hostname
    except ValueError:
        name = ""
    if not name:
        raise InvalidHost("the host is neither a name nor an address by the WHATWG URL standard")
    return name


class HostFault(enum.Enum):
    """Why a Host is refused."""

    MISSING = "missing"
    MALFORMED = "malformed"
    NOT_ALLOWED = "not allowed"


@dataclass(frozen=True, slots=True)
class HostVerdict:
    """`text` is the body of the 403; no fault and no text where the request is admitted."""

    fault: HostFault | None
    text: str


_ADMITTED: Final = HostVerdict(None, "")


@dataclass(frozen=True, slots=True)
class HostRules:
    """The hosts that we are, as configured; none: no check.

    Raises:
        InvalidHost: an entry is none.
    """

    allowed: tuple[str, ...]

    def __post_init__(self) -> None:
        for entry in self.allowed:
            normalize_host(entry, "http")

    def judge(self, host: str | None, scheme: str, *, malformed: bool = False) -> HostVerdict:
        """Whether a request for `host` is for us. Never raises.

        Args:
            host: the effective Host; None or empty if there is none.
            scheme: the effective one, `http` or `https`: its default port is the one that may be left out,
                here and in the entries.
            malformed: there is no telling which host is meant, as with several Host headers.
        """
        if not self.allowed:
            return _ADMITTED
        if malformed:
            return _malformed()
        if not host:
            return HostVerdict(HostFault.MISSING, "missing Host header")
        try:
            wanted = normalize_host(host, scheme)
        except InvalidHost:
            return _malformed()
        if any(wanted == normalize_host(entry, scheme) for entry in self.allowed):
            return _ADMITTED
        return HostVerdict(HostFault.NOT_ALLOWED, f"Host not allowed: {echo(wanted)}")


def _malformed() -> HostVerdict:
    return HostVerdict(HostFault.MALFORMED, "malformed Host header")
