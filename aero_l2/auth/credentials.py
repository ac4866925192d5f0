"""Where a request carries credentials: path, query, subprotocol, Authorization, cookie; none is verified."""

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

# Found rather than taken apart: a head full of separators costs 10 µs so, and 3 ms by split.
_TOKEN = re.compile(r"(?:\A|&)token(?:=([^&]*))?(?=&|\Z)")
_API_KEY = re.compile(r"(?:\A|&)apiKey(?:=([^&]*))?(?=&|\Z)")
_SUBPROTOCOL = re.compile(rf"(?:\A|,)[ \t]*{re.escape(CREDENTIAL_SUBPROTOCOL)}([^,]*)")
_COOKIE = re.compile(rf"(?:\A|;)[ \t]*{SESSION_COOKIE}[ \t]*=([^;]*)")


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What a request presents, decoded; None = absent, `UNREADABLE` = present and never valid.

    Attributes:
        bearer: of `Authorization: Bearer`.
        token: of the query's `token`.
        api_key: of the query's `apiKey`.
        subprotocol: of the offered `aero-l2-token.<credential>`.
        cookie: of the first `aero_session` cookie.
        path: of the path, where it has a place for one.
    """

    bearer: str | None = None
    token: str | None = None
    api_key: str | None = None
    subprotocol: str | None = None
    cookie: str | None = None
    path: str | None = None

    @property
    def key(self) -> str | None:
        """The one that counts where an API key is asked for."""
        return next(_present(self.path, self.token, self.api_key, self.subprotocol), None)

    @property
    def jwts(self) -> tuple[str, ...]:
        """Those to try where a JWT is asked for, in order."""
        return tuple(_present(self.bearer, self.path, self.token, self.api_key, self.subprotocol))

    def __repr__(self) -> str:
        """Say what is there, not what it is."""
        there = (field.name for field in fields(self) if getattr(self, field.name) is not None)
        return f"Credentials({', '.join(there)})"


def read_credentials(query: str, headers: HeaderLines, path: str = "") -> Credentials:
    """Credentials of a request. Never raises: what cannot be read is absent or `UNREADABLE`.

    Args:
        query: the query string as sent, without the question mark.
        headers: the request's header fields.
        path: the part of the path that is a credential, as sent; empty where there is none.
    """
    return Credentials(
        bearer=_bearer(headers.get_all("Authorization")),
        token=_parameter(query, _TOKEN),
        api_key=_parameter(query, _API_KEY),
        subprotocol=_subprotocol(headers.get_all("Sec-WebSocket-Protocol")),
        cookie=_cookie(headers.get_all("Cookie")),
        path=_percent_decoded(path) if path else None,
    )


def _present(*values: str | None) -> Iterator[str]:
    return (value for value in values if value is not None)


def _parameter(query: str, wanted: re.Pattern[str]) -> str | None:
    """The first parameter of that very name; a plus is a plus (RFC 3986 gives it no other meaning)."""
    found = wanted.search(query)
    return _percent_decoded(found[1]) if found is not None and found[1] else None


def _bearer(lines: list[str]) -> str | None:
    """The first line of that scheme, whose name has no case (RFC 9110 §11.1)."""
    for line in lines:
        scheme, _, credential = line.strip(" \t").partition(" ")
        if scheme.lower() == "bearer":
            return credential.strip(" ") or None
    return None


def _subprotocol(lines: list[str]) -> str | None:
    found = _first(_SUBPROTOCOL, lines)
    return found.rstrip(" \t") or None if found is not None else None


def _cookie(lines: list[str]) -> str | None:
    """The first one counts, even if it is empty."""
    value = (_first(_COOKIE, lines) or "").strip(" \t")
    return _percent_decoded(value) if value else None


def _first(wanted: re.Pattern[str], lines: list[str]) -> str | None:
    return next((found[1] for line in lines if (found := wanted.search(line)) is not None), None)


def _percent_decoded(value: str) -> str:
    """The value decoded as UTF-8, `UNREADABLE` if an escape is broken or the bytes are not UTF-8."""
    if _BROKEN_ESCAPE.search(value):
        return UNREADABLE
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        return UNREADABLE
