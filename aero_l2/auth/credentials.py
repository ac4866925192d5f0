"""Where a request carries credentials: query, subprotocol, Authorization, cookie. Nothing is verified."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Final
from urllib.parse import unquote

from aero_l2.web.forwarded import HeaderLines

SESSION_COOKIE: Final = "aero_session"
CREDENTIAL_SUBPROTOCOL: Final = "aero-l2-token."
UNREADABLE: Final = ""  # presented, but its percent-encoding is broken: no secret and no token is empty
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What a request presents, decoded; None = absent, `UNREADABLE` = present and never valid.

    Attributes:
        bearer: of `Authorization: Bearer`.
        token: of the query's `token`.
        api_key: of the query's `apiKey`.
        subprotocol: of the offered `aero-l2-token.<credential>`.
        cookie: of the first `aero_session` cookie.
    """

    bearer: str | None = None
    token: str | None = None
    api_key: str | None = None
    subprotocol: str | None = None
    cookie: str | None = None

    @property
    def key(self) -> str | None:
        """The one that counts where an API key is asked for."""
        return next(_present(self.token, self.api_key, self.subprotocol), None)

    @property
    def jwts(self) -> tuple[str, ...]:
        """Those to try where a JWT is asked for, in order."""
        return tuple(_present(self.bearer, self.token, self.api_key, self.subprotocol))

    def __repr__(self) -> str:
        """Say what is there, not what it is."""
        there = (field.name for field in fields(self) if getattr(self, field.name) is not None)
        return f"Credentials({', '.join(there)})"


def read_credentials(query: str, headers: HeaderLines) -> Credentials:
    """Credentials of a request. Never raises: what cannot be read is absent or `UNREADABLE`.

    Args:
        query: the query string as sent, without the question mark.
        headers: the request's header fields.
    """
    return Credentials(
        bearer=_bearer(headers.get_all("Authorization")),
        token=_parameter(query, "token"),
        api_key=_parameter(query, "apiKey"),
        subprotocol=_subprotocol(headers.get_all("Sec-WebSocket-Protocol")),
        cookie=_cookie(headers.get_all("Cookie")),
    )


def _present(*values: str | None) -> Iterator[str]:
    return (value for value in values if value is not None)


def _parameter(query: str, wanted: str) -> str | None:
    """The first parameter of that very name; a plus is a plus (RFC 3986 gives it no other meaning)."""
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if name == wanted:
            return _percent_decoded(value) if value else None
    return None


def _bearer(lines: list[str]) -> str | None:
    """The first line of that scheme, whose name has no case (RFC 9110 §11.1)."""
    for line in lines:
        scheme, _, credential = line.strip(" \t").partition(" ")
        if scheme.lower() == "bearer":
            return credential.strip(" ") or None
    return None


def _subprotocol(lines: list[str]) -> str | None:
    for name in _elements(lines, ","):
        if name.startswith(CREDENTIAL_SUBPROTOCOL):
            return name.removeprefix(CREDENTIAL_SUBPROTOCOL) or None
    return None


def _cookie(lines: list[str]) -> str | None:
    """The first one counts, even if it is empty."""
    for pair in _elements(lines, ";"):
        name, equals, value = pair.partition("=")
        if equals and name.rstrip(" \t") == SESSION_COOKIE:
            value = value.strip(" \t")
            return _percent_decoded(value) if value else None
    return None


def _elements(lines: list[str], separator: str) -> Iterator[str]:
    return (element.strip(" \t") for line in lines for element in line.split(separator))


def _percent_decoded(value: str) -> str:
    """The value decoded as UTF-8, `UNREADABLE` if an escape is broken or the bytes are not UTF-8."""
    if _BROKEN_ESCAPE.search(value):
        return UNREADABLE
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        return UNREADABLE
