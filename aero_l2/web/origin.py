"""The Origin of a request: what is one, its normal form, and who may come (docs/SPECIFICATION.md). Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aero_l2.web.echo import echo
from aero_l2.web.host import DEFAULT_PORTS, InvalidHost, normalize_host

NULL: Final = "null"
_OWS: Final = " \t"


class InvalidOrigin(ValueError):
    """The text is no origin; the message says why, without repeating it."""


def normalize_origin(text: str) -> str:
    """`scheme://host[:port]` as browsers write it (RFC 6454 §6.2, WHATWG HTML), or `null`.

    Scheme and host come out in lower case, the default port is dropped. The scheme is `http` or `https`; one
    `/` at the end is allowed; see `normalize_host` for the rest.

    Raises:
        InvalidOrigin: anything else. `null` is lower case.
    """
    if text == NULL:
        return NULL
    scheme, separator, authority = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in DEFAULT_PORTS:
        raise InvalidOrigin("an origin begins with http:// or https://")
    try:
        return f"{scheme}://{normalize_host(authority.removesuffix('/'), scheme)}"
    except InvalidHost as error:
        raise InvalidOrigin(str(error)) from None


def sole_origin(origins: Sequence[str]) -> str | None:
    """The normal form of exactly one valid Origin header; None for none, several or an invalid one.

    Args:
        origins: the values of the request's Origin headers, one each.
    """
    if len(origins) != 1:
        return None
    try:
        return normalize_origin(origins[0].strip(_OWS))
    except InvalidOrigin:
        return None


class OriginFault(enum.Enum):
    """Why an Origin is refused."""

    MISSING = "missing"
    INVALID = "invalid"
    NOT_ALLOWED = "not allowed"


@dataclass(frozen=True, slots=True)
class OriginVerdict:
    """`origin` is in normal form, None without exactly one valid; `text` is the body of the 403, or empty."""

    origin: str | None
    fault: OriginFault | None
    text: str


@dataclass(frozen=True, slots=True)
class OriginRules:
    """Who may come: `allowed` in normal form (empty: pages of the host that is asked), or every valid Origin.

    `open` turns the check off, whatever else is set.
    """

    allowed: frozenset[str]
    any_valid: bool = False
    open: bool = False

    def judge(self, origins: Sequence[str], host: str | None) -> OriginVerdict:
        """Whether a request may come from there. Never raises.

        Args:
            origins: the values of the request's Origin headers, one each.
            host: the effective Host, None if it is missing or malformed; only the same-host rule looks at it.
        """
        origin = sole_origin(origins)
        if self.open:
            return OriginVerdict(origin, None, "")
        if len(origins) > 1:
            return OriginVerdict(None, OriginFault.INVALID, "invalid Origin header: multiple values")
        raw = origins[0].strip(_OWS) if origins else ""
        if not raw:
            return OriginVerdict(None, OriginFault.MISSING, "missing Origin header")
        if origin is None:
            return OriginVerdict(None, OriginFault.INVALID, f"invalid Origin header: {echo(raw)}")
        if self._admits(origin, host):
            return OriginVerdict(origin, None, "")
        return OriginVerdict(origin, OriginFault.NOT_ALLOWED, f"Origin not allowed: {echo(origin)}")

    def _admits(self, origin: str, host: str | None) -> bool:
        if self.any_valid or self.allowed:
            return self.any_valid or origin in self.allowed
        return host is not None and _is_same_host(origin, host)


def _is_same_host(origin: str, host: str) -> bool:
    scheme, separator, authority = origin.partition("://")
    try:
        return bool(separator) and normalize_host(host, scheme) == authority
    except InvalidHost:
        return False
