"""Opening a tunnel: from an address to a finished handshake, and what is wrong where there is none."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import socket
import ssl
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, cast
from urllib.parse import urljoin, urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websockets_connect
from websockets.exceptions import (
    InvalidHandshake,
    InvalidMessage,
    InvalidProxy,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
    ProxyError,
    WebSocketException,
)
from websockets.http11 import Response
from websockets.typing import Origin, Subprotocol

from aero_l2 import __version__
from aero_l2.client.address import Credential, InvalidTarget, Target, public
from aero_l2.client.connection import Connection
from aero_l2.client.errors import (
    ClientError,
    CredentialRefused,
    NotATunnel,
    OpenTimeout,
    ProxyFailed,
    Refused,
    TlsFailed,
    Unreachable,
    printable,
    refusal,
)
from aero_l2.client.link import MAX_FRAME, Link
from aero_l2.wire.tunnel import DEFAULT_MAX_FRAME_PAYLOAD, HEADER_BYTES, SUBPROTOCOL

_LOGGER: Final = logging.getLogger("aero_l2.client.websockets")
# Headers hold credentials and frames a guest's data; what goes wrong is raised by us, in words for people.
_LOGGER.setLevel(logging.CRITICAL + 1)

_NO_HTTP: Final = (
    "what is there does not answer as HTTP/1.1 (is it the right port, and ws or wss as it should be?)"
)
_HOPELESS_PROXY_STATUSES: Final = range(400, 500)


@dataclass(frozen=True, slots=True)
class Options:
    """How to open a tunnel.

    origin: None is the address's own, `NO_ORIGIN` none. ca_file: certificates to trust instead of the
    system's (PEM). open_timeout_s: for name, connection, TLS and upgrade together. keepalive_s: a PING so
    often, and a server that says nothing from one to the next is lost; 0 = no PING, no judgement.
    queued_frames: kept in either direction. proxy: whether HTTPS_PROXY and the like of the environment count;
    never for a loopback address. max_frame_bytes: longer frames are not sent, see AERO_L2_MAX_FRAME_PAYLOAD
    of the server. resume: have the server keep the tunnel's network for a while if the connection breaks, for
    whoever comes back with `Tunnel.resume_secret`.

    Raises ValueError for numbers that make no sense.
    """

    credential: Credential | None = None
    origin: str | None = None
    ca_file: Path | None = None
    open_timeout_s: float = 10.0
    keepalive_s: float = 15.0
    queued_frames: int = 256
    proxy: bool = True
    max_frame_bytes: int = DEFAULT_MAX_FRAME_PAYLOAD
    resume: bool = False

    def __post_init__(self) -> None:
        if not (self.open_timeout_s > 0 and self.keepalive_s >= 0):
            raise ValueError("open_timeout_s is more than 0, keepalive_s is not negative")
        if self.queued_frames < 1 or not 0 < self.max_frame_bytes <= MAX_FRAME:
            raise ValueError(f"queued_frames is 1 at least, max_frame_bytes from 1 to {MAX_FRAME}")


class _Handshake(websockets_connect):
    """websockets' way to a connection, without following redirects: credentials stay where they were sent."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def open_link(target: Target, options: Options, secret: str | None = None) -> Link:
    """An open tunnel; ``secret``: of one that was lost and is wanted back. Raises ClientError."""
    if options.resume or secret is not None:
        target = target.resuming(secret)
    context = tls_context(options.ca_file) if target.is_tls else None
    link = Link(options.queued_frames, options.keepalive_s, target.redact)
    try:
        connection = await _Handshake(
            target.url,
            origin=None if target.origin is None else Origin(target.origin),
            subprotocols=[Subprotocol(one) for one in target.subprotocols],
            additional_headers=list(target.headers),
            user_agent_header=f"aero-l2/{__version__}",
            compression=None,
            logger=_LOGGER,
            ssl=context,
            proxy=True if options.proxy and not _is_loopback(target) else None,
            open_timeout=options.open_timeout_s,
            ping_interval=None,
            max_size=HEADER_BYTES + MAX_FRAME,
            create_connection=cast(type[ClientConnection], partial(Connection, link)),
        )
    except (OSError, EOFError, ImportError, WebSocketException) as error:
        raise _fault(error, target, options) from None
    if connection.subprotocol != SUBPROTOCOL:
        connection.transport.abort()
        raise NotATunnel(101, f"a WebSocket without the subprotocol {SUBPROTOCOL}")
    if secret is not None:
        try:
            await link.learn_whether_resumed(options.open_timeout_s)
        except BaseException:
            connection.transport.abort()
            raise
    link.start_keepalive()
    return link


def _is_loopback(target: Target) -> bool:
    host = urlsplit(target.url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # RFC 6761 §6.3


# -- what went wrong


def _fault(error: Exception, target: Target, options: Options) -> ClientError:
    """The error for people. What a server says is in it redacted, an exception's own text not at all."""
    where = target.display
    match error:
        case InvalidStatus():
            refused = _refusal(error.response, target)
            if isinstance(refused, CredentialRefused) and not target.secrets:
                return CredentialRefused.of_none(refused.body, refused.retry_after_s)
            return refused
        case ProxyError() | InvalidProxy() | ImportError():
            return _proxy_fault(error, where)
        case TimeoutError():
            return OpenTimeout(f"{where}: no answer within {options.open_timeout_s:g} s")
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return Unreachable(f"{where}: the connection ended during the TLS handshake")
        case ssl.SSLError():
            return TlsFailed(f"{where}: {_tls_fault(error)}")
        case InvalidMessage() if isinstance(error.__cause__, EOFError):
            return Unreachable(f"{where}: the connection ended before an answer")
        case InvalidMessage():
            return NotATunnel(0, _NO_HTTP)
        case InvalidHandshake():
            return NotATunnel(101, target.redact(str(error)))
        case InvalidURI():
            return InvalidTarget(f"not an address: {where}: {error.msg}")
        case _:
            return Unreachable(f"{where}: {_network_fault(error)}")


def _refusal(response: Response, target: Target) -> Refused:
    body = target.redact(bytes(response.body).decode("utf-8", "replace"))
    if 300 <= response.status_code < 400 and (places := response.headers.get_all("Location")):
        try:
            place = public(urljoin(target.url.replace("ws", "http", 1), places[0]))
        except ValueError:
            place = "what is no address"
        return NotATunnel(response.status_code, target.redact(f"it points to {place}, which is not followed"))
    asked = response.headers.get_all("Retry-After")
    return refusal(response.status_code, body, asked[0] if asked else None)


def _proxy_fault(error: Exception, where: str) -> ProxyFailed:
    """The proxy's address may hold a password, so it is not repeated."""
    named = "the proxy named by the environment (HTTPS_PROXY, ALL_PROXY and the like)"
    match error:
        case InvalidProxyStatus():
            status = error.response.status_code
            text, retryable = f"refuses: HTTP {status}", status not in _HOPELESS_PROXY_STATUSES
        case InvalidProxy():
            text, retryable = f"is not usable: {error.msg}", False
        case ImportError():
            text, retryable = "is a SOCKS proxy, for which the Python package python-socks is needed", False
        case _:
            text, retryable = "does not answer as a proxy", True
    return ProxyFailed(f"{where}: {named} {text}", retryable=retryable)


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """What a server's certificate is judged by: the file (PEM), else the system's. Raises InvalidTarget."""
    if ca_file is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        fault = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise InvalidTarget(
            f"cannot read certificates from {printable(str(ca_file))}: {fault or 'unusable'}"
        ) from None


def _tls_fault(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message} (give the CA's file to trust it)"
    return f"no TLS there: {printable(error.reason or str(error))}"


def _network_fault(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return f"its name cannot be resolved: {error.strerror}"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    numbers = dict.fromkeys(int(number) for number in re.findall(r"\[Errno (\d+)\]", str(error)))
    if numbers:  # asyncio tried several addresses
        return ", ".join(os.strerror(number) for number in numbers)
    return printable(str(error)) or "the connection ended before an answer"
