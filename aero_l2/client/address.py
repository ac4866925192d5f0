"""Where a tunnel is, and with which credential: the request that asks for it. Pure."""

from __future__ import annotations

import enum
import html
import re
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from aero_l2.client.errors import ClientError, printable
from aero_l2.web.host import InvalidHost, ascii_name
from aero_l2.web.origin import InvalidOrigin, normalize_origin
from aero_l2.wire.tunnel import RESUME_SUBPROTOCOL, SUBPROTOCOL

DEFAULT_PATH: Final = "/l2"
NO_ORIGIN: Final = ""
"""As `Target.of`'s ``origin``: send none."""

_SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2
_COOKIE_VALUE: Final = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+")  # RFC 6265 §4.1.1
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_ENCODABLE: Final = re.compile(r"[^\ud800-\udfff]+")
_URL_SAFE: Final = "/?:@!$&'()*+,;=-._~%[]"  # RFC 3986 §2.2, and what is encoded already
_SECRET_PARAMETERS: Final = frozenset(("token", "apikey"))
_LONG: Final = 8
_HIDDEN: Final = "***"


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
    origin: None sends none. subprotocols, headers: as they are sent. secrets: of the credential, what no text
    may show. resume_secret: of a tunnel that is wanted back; no text may show it either.
    """

    url: str
    display: str
    origin: str | None
    subprotocols: tuple[str, ...]
    headers: tuple[tuple[str, str], ...]
    secrets: tuple[str, ...] = ()
    resume_secret: str = ""

    def __repr__(self) -> str:
        return f"Target({self.display})"

    @property
    def is_tls(self) -> bool:
        """Whether it is a wss address."""
        return self.url.startswith("wss:")

    def redact(self, text: str) -> str:
        """What a server says, without the secrets that it may repeat."""
        for secret in (*self.secrets, *([self.resume_secret] if self.resume_secret else [])):
            text = text.replace(secret, _HIDDEN)
        return text

    def resuming(self, secret: str | None) -> Target:
        """The same request of a client that can resume; ``secret``: of the tunnel it wants back."""
        entry = RESUME_SUBPROTOCOL if secret is None else f"{RESUME_SUBPROTOCOL}.{secret}"
        return replace(self, subprotocols=(*self.subprotocols, entry), resume_secret=secret or "")

    @classmethod
    def of(cls, url: str, credential: Credential | None = None, origin: str | None = None) -> Target:
        """Read an address: ws, wss, http or https; without a path it means ``/l2``.

        ``origin``: None means the address's own, `NO_ORIGIN` none.

        Raises InvalidTarget.
        """
        parts, scheme, netloc = _split(url.strip())
        path = quote(parts.path, safe=_URL_SAFE) if parts.path not in ("", "/") else DEFAULT_PATH
        query, subprotocols, headers = _deliver(credential, quote(parts.query, safe=_URL_SAFE))
        plain = urlunsplit((scheme, netloc, path, "", ""))
        return cls(
            url=urlunsplit((scheme, netloc, path, query, "")),
            display=public(plain),
            origin=_origin(origin, scheme, netloc),
            subprotocols=subprotocols,
            headers=headers,
            secrets=_secrets(credential, parts),
        )


def _split(url: str) -> tuple[SplitResult, str, str]:
    """An address, its scheme (ws or wss), and its ``host[:port]`` in ASCII."""
    like = f"not an address: {public(url)} (ws:// or wss:// in front, ports up to 65535, like wss://lab.example/l2)"
    if not url.isprintable() or " " in url:
        raise InvalidTarget(like)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host = host if host.isascii() else ascii_name(host)
    except (ValueError, InvalidHost):
        raise InvalidTarget(like) from None
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None or not host or port == 0:
        raise InvalidTarget(like)
    if parts.username is not None or parts.fragment:
        raise InvalidTarget(
            f"not an address: {public(url)} (without user and fragment; a credential is given apart)"
        )
    netloc = f"[{host}]" if ":" in host else host
    return parts, scheme, netloc if port is None else f"{netloc}:{port}"


def public(url: str) -> str:
    """An address, or what was meant to be one, in one line and without what may be secret in it.

    That is the query, the fragment, whatever stands before an ``@``, and the token of a ``/v86/`` path.
    """
    scheme, separator, rest = url.partition("?")[0].partition("#")[0].partition("://")
    if not separator:
        return _HIDDEN if url else "nothing"
    _, user, rest = rest.rpartition("@")
    rest = re.sub(r"^([^/]*/v86/).+", rf"\1{_HIDDEN}", rest)
    return printable(f"{scheme}://{_HIDDEN + user if user else ''}{rest}")


def _secrets(credential: Credential | None, parts: SplitResult) -> tuple[str, ...]:
    """Every form in which a server may repeat a secret, the longest first."""
    given = [] if credential is None else [credential.value]
    for parameter in parts.query.split("&"):
        name, _, value = parameter.partition("=")
        if name.lower() in _SECRET_PARAMETERS or len(value) >= _LONG:
            given += [value, unquote(value, errors="replace")]
    forms = {form for value in given for form in (value, quote(value, safe=""), html.escape(value))}
    return tuple(sorted(forms - {""}, key=len, reverse=True))


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
            _check(_ENCODABLE, value, "sent in any way")
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
