"""What a connection at the door needs from outside: of its server, and of the kernel for its socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from aero_l2.door.endpoints import Answer, Endpoints
from aero_l2.door.handshake import DoorRules, Refusal
from aero_l2.door.http import RequestHead
from aero_l2.errors import Overloaded
from aero_l2.observe.limit import LimitedLog
from aero_l2.observe.metrics import Metrics
from aero_l2.quota.rate import RateLimit
from aero_l2.session.tunnels import Tunnels
from aero_l2.web.forwarded import Via
from aero_l2.wire.framing import Framing, FramingName

if TYPE_CHECKING:
    from aero_l2.door.answering import Answering
    from aero_l2.door.connection import Connection

# A client whose machine is gone is noticed after about three minutes, also where nothing is sent (tcp(7)).
_KEEPALIVE: Final = (
    ((socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1),
    ((socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), 120),
    ((socket.IPPROTO_TCP, socket.TCP_KEEPINTVL), 15),
    ((socket.IPPROTO_TCP, socket.TCP_KEEPCNT), 4),
)


class Door(Protocol):
    """What a connection needs of the server."""

    endpoints: Endpoints
    rules: DoorRules
    attempts: RateLimit
    close_on_expiry: bool
    max_head_bytes: int
    tunnels: Tunnels
    metrics: Metrics
    log: LimitedLog
    head_timeout_s: float

    def respond(self, head: RequestHead, how: Via) -> Answer | None:
        """The answer to a request, None where it asks for a tunnel."""

    def answer(self, head: RequestHead) -> Answer:
        """The answer to a request that asks for no tunnel."""

    def refused(self, refusal: Refusal, who: Mapping[str, Any]) -> None:
        """An upgrade is: count it, and have it in the logs with these fields."""

    def overload(self, client: str) -> Overloaded | None:
        """Why nobody, or not this client, can be taken on now."""

    def framing(self, name: FramingName) -> Framing:
        """How the frames of a tunnel travel."""

    def waits(self, connection: Answering) -> None:
        """A connection stands at the door."""

    def entered(self, connection: Connection) -> None:
        """It is becoming a tunnel; it no longer counts as waiting."""

    def left(self, connection: Answering) -> None:
        """It is gone, or a tunnel has taken over."""


def prepare_socket(sock: socket.socket) -> None:
    """Send small messages at once, and notice a client that vanished."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(*option, value)


def end_writing(transport: asyncio.Transport) -> None:
    """Say that nothing follows, unless what was written has met a reset."""
    with contextlib.suppress(OSError):
        transport.write_eof()
