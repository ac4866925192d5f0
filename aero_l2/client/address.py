"""Where a tunnel is, and with which credential: the request that asks for it. Pure."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

from aero_l2.client.errors import ClientError, printable
from aero_l2.web.origin import InvalidOrigin, normalize_origin
from aero_l2.wire.tunnel import SUBPROTOCOL

DEFAULT_PATH: Final = "/l2"
NO_ORIGIN: Final = ""
"""As `Target.of`'s ``origin``: send none."""

_SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2
_COOKIE_VALUE: Final = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+")  # RFC 6265 §4.1.1
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")


class InvalidTarget(ClientError, ValueError):
    """The address, Origin or credential cannot be used; nothing was sent."""


class Delivery(enum.Enum):
    """How a credential travels (docs/auth.md)."""

    SUBPROTOCOL = "subprotocol"
    """Offered as ``aero-l2-token.<credential>``: in no address, so in no log."""
    QUERY = "query"
    """``?token=…``, for credentials that are no HTTP token."""
    BEARER = "bearer"
    """``Authorization: Bearer …``, JWTs only."""
    COOKIE = "cookie"
    """The ``aero_session`` cookie."""


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """A secret, and how it travels."""

    value: str
    delivery: Delivery = Delivery.SUBPROTOCOL

    def __repr__(self) -> str:
        return f"Credential(***, {self.delivery})"


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """A request for a tunnel: made by `of`.

    url: ws or wss, with the query, which may hold a credential; `display` never does.
    origin: None sends none. subprotocols, headers: as they are sent.
    """

    url: str
    display: str
    origin: str | None
    subprotocols: tuple[str, ...]
    headers: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return f"Target({self.display})"

    @property
    def is_tls(self) -> bool:
        """Whether it is a wss address."""
        return self.url.startswith("wss:")

    @classmethod
    def of(cls, url: str, credential: Credential | None = None, origin: str | None = None) -> Target:
        """Read an address: ws, wss, http or https; without a path it means ``/l2``.

        ``origin``: None means the address's own, `NO_ORIGIN` none.

        Raises InvalidTarget.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise InvalidTarget(f"not an address: {_public(url)}") from None
        scheme = _SCHEMES.get(parts.scheme)
        if scheme is None or not host:
            raise InvalidTarget(f"not an address: {_public(url)} (like wss://lab.example/l2)")
        if parts.username is not None or parts.fragment:
            raise InvalidTarget(
                f"not an address: {_public(url)} (without user and fragment; a credential is given apart)"
            )
        path = parts.path if parts.path not in ("", "/") else DEFAULT_PATH
        query, subprotocols, headers = _deliver(credential, parts.query)
        netloc = f"[{host}]" if ":" in host else host
        netloc += f":{port}" if port is not None else ""
        return cls(
            url=urlunsplit((scheme, netloc, path, query, "")),
            display=urlunsplit((scheme, netloc, path, "", "")),
            origin=_origin(origin, scheme, netloc),
            subprotocols=subprotocols,
            headers=headers,
        )


def _public(url: str) -> str:
    """An address without what may be secret in it."""
    return printable(re.sub(r"//[^/?#@]*@", "//***@", url.partition("?")[0].partition("#")[0])) or "nothing"


def _origin(origin: str | None, scheme: str, netloc: str) -> str | None:
    if origin == NO_ORIGIN:
        return None
    try:
        return normalize_origin(f"{scheme.replace('ws', 'http', 1)}://{netloc}" if origin is None else origin)
    except InvalidOrigin as error:
        raise InvalidTarget(f"not an Origin: {printable(origin or netloc)} ({error})") from None


def _deliver(
    credential: Credential | None, query: str
) -> tuple[str, tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Query, subprotocols and headers of a request that carries the credential."""
    if credential is None:
        return query, (SUBPROTOCOL,), ()
    value = credential.value
    match credential.delivery:
        case Delivery.SUBPROTOCOL:
            _check(_TOKEN, value, "offered as a subprotocol; deliver it in the query instead")
            return query, (SUBPROTOCOL, f"aero-l2-token.{value}"), ()
        case Delivery.QUERY:
            given = f"token={quote(value, safe='')}"
            return f"{query}&{given}" if query else given, (SUBPROTOCOL,), ()
        case Delivery.BEARER:
            _check(_VISIBLE, value, "sent as a header")
            return query, (SUBPROTOCOL,), (("Authorization", f"Bearer {value}"),)
        case Delivery.COOKIE:
            _check(_COOKIE_VALUE, value, "sent as a cookie")
            return query, (SUBPROTOCOL,), (("Cookie", f"aero_session={value}"),)


def _check(pattern: re.Pattern[str], value: str, where: str) -> None:
    if not value:
        raise InvalidTarget("the credential is empty: leave it out where none is asked for")
    if not pattern.fullmatch(value):
        raise InvalidTarget(f"the credential has characters that cannot be {where}")
