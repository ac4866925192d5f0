"""Opening a tunnel: from an address to an upgraded connection, and what is wrong where there is none."""

from __future__ import annotations

import logging
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, WebSocketException
from websockets.typing import Origin, Subprotocol

from aero_l2 import __version__
from aero_l2.client.address import Credential, InvalidTarget, Target
from aero_l2.client.errors import NotATunnel, OpenTimeout, TlsFailed, Unreachable, printable, refusal
from aero_l2.wire.tunnel import HEADER_BYTES, SUBPROTOCOL

MAX_FRAME: Final = 65_535
"""Largest frame that is taken from a server, whatever its own limit is."""
CLOSE_TIMEOUT_S: Final = 2.0
_LOGGER: Final = logging.getLogger("aero_l2.client.websockets")
_LOGGER.setLevel(logging.WARNING)  # below that it writes every header and frame down


@dataclass(frozen=True, slots=True)
class Options:
    """How to open a tunnel.

    origin: None is the address's own, `NO_ORIGIN` none. ca_file: certificates to trust instead of the
    system's (PEM). open_timeout_s: for name, connection, TLS and upgrade together. keepalive_s: a server that
    answers no WebSocket ping for so long is lost; 0 = never asked. queued_frames: kept in either direction.
    proxy: whether HTTPS_PROXY and the like of the environment count.
    """

    credential: Credential | None = None
    origin: str | None = None
    ca_file: Path | None = None
    open_timeout_s: float = 10.0
    keepalive_s: float = 15.0
    queued_frames: int = 256
    proxy: bool = True


async def open_connection(target: Target, options: Options) -> ClientConnection:
    """The upgraded connection. Raises ClientError."""
    context = _tls(options) if target.is_tls else None
    try:
        websocket = await connect(
            target.url,
            origin=None if target.origin is None else Origin(target.origin),
            subprotocols=[Subprotocol(one) for one in target.subprotocols],
            additional_headers=list(target.headers),
            user_agent_header=f"aero-l2/{__version__}",
            compression=None,
            logger=_LOGGER,
            ssl=context,
            proxy=True if options.proxy else None,
            open_timeout=options.open_timeout_s,
            ping_interval=options.keepalive_s or None,
            ping_timeout=options.keepalive_s or None,
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=HEADER_BYTES + MAX_FRAME,
            max_queue=options.queued_frames,
        )
    except InvalidStatus as answer:
        response = answer.response
        body = bytes(response.body or b"").decode("utf-8", "replace")
        raise refusal(response.status_code, body, response.headers.get("Retry-After")) from None
    except TimeoutError:
        raise OpenTimeout(f"{target.display}: no answer within {options.open_timeout_s:g} s") from None
    except ssl.SSLError as error:
        raise TlsFailed(f"{target.display}: {_tls_fault(error)}") from None
    except InvalidHandshake as error:
        raise NotATunnel(101, printable(str(error))) from None
    except (OSError, EOFError, WebSocketException) as error:
        raise Unreachable(f"{target.display}: {_network_fault(error)}") from None
    if websocket.subprotocol != SUBPROTOCOL:
        await websocket.close()
        raise NotATunnel(101, f"a WebSocket without the subprotocol {SUBPROTOCOL}")
    return websocket


def _tls(options: Options) -> ssl.SSLContext:
    if options.ca_file is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=options.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise InvalidTarget(
            f"cannot read certificates from {options.ca_file}: {error.strerror or error}"
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
    return printable(str(error)) or "the connection ended before an answer"
