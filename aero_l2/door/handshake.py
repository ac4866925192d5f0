"""The upgrade to a WebSocket: is it well-formed, and may it become a tunnel? Pure.

`CHECKS` run in order and the first refusal answers. Credentials, Origin, Host and the limits per client
belong behind the subprotocol, in that order; the process-wide limit and the making of the tunnel come last
and are the permit's and the segment's to refuse (`refusal_of`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from aero_l2.door.endpoints import SHUTTING_DOWN
from aero_l2.door.http import RequestHead, Response, text_response
from aero_l2.errors import AtCapacity, SegmentUnavailable
from aero_l2.observe.metrics import Metrics
from aero_l2.wire.tunnel import SUBPROTOCOL

MISSING_SUBPROTOCOL: Final = f'missing required websocket subprotocol "{SUBPROTOCOL}"'
MAX_CONNECTIONS: Final = "max connections exceeded"

_HANDSHAKE_FIELDS: Final = ("Connection", "Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version")


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What the checks judge: the request and the state of the door at that moment."""

    head: RequestHead
    draining: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an upgrade is refused; `metric` is the attribute of `Metrics` that counts it as a rejection."""

    status: int
    text: str
    metric: str | None = None

    def response(self) -> Response:
        """The answer to the client."""
        return text_response(self.status, self.text)

    def count(self, metrics: Metrics) -> None:
        """Count it; the 400s and 503s are not rejections in the metrics."""
        if self.metric is not None:
            metrics.upgrade_rejected.inc()
            getattr(metrics, self.metric).inc()


Check = Callable[[Upgrade], Refusal | None]


def not_shutting_down(upgrade: Upgrade) -> Refusal | None:
    """No new tunnels while draining."""
    return Refusal(503, SHUTTING_DOWN) if upgrade.draining else None


def offers_subprotocol(upgrade: Upgrade) -> Refusal | None:
    """The tunnel protocol must be among the offered ones, spelled exactly (RFC 6455 §4.1)."""
    offered = (
        name.strip()
        for line in upgrade.head.headers.get_all("Sec-WebSocket-Protocol")
        for name in line.split(",")
    )
    return None if SUBPROTOCOL in offered else Refusal(400, MISSING_SUBPROTOCOL)


CHECKS: Final[tuple[Check, ...]] = (not_shutting_down, offers_subprotocol)


def first_refusal(upgrade: Upgrade) -> Refusal | None:
    """The refusal of the first check that fails."""
    return next((refusal for check in CHECKS if (refusal := check(upgrade)) is not None), None)


def refusal_of(failure: AtCapacity | SegmentUnavailable) -> Refusal:
    """What the client is told when permit or segment is refused."""
    if isinstance(failure, AtCapacity):
        return Refusal(429, MAX_CONNECTIONS, "upgrade_reject_max_connections")
    return Refusal(503, failure.reason)


def accept(head: RequestHead) -> bytes | Response:
    """The bytes of the 101, or the answer to a malformed handshake.

    websockets judges key and version (RFC 6455 §4.2). It is shown only the fields it needs, with exactly our
    subprotocol offered and no extension, so nothing else can be negotiated.
    """
    if head.version != "HTTP/1.1" or head.has_body:
        return text_response(400, "a WebSocket upgrade is an HTTP/1.1 request without a body")
    fields = Headers()
    for name in _HANDSHAKE_FIELDS:
        for value in head.headers.get_all(name):
            fields[name] = value
    fields["Sec-WebSocket-Protocol"] = SUBPROTOCOL
    protocol = ServerProtocol(subprotocols=[Subprotocol(SUBPROTOCOL)])
    response = protocol.accept(Request("/", fields))
    if response.status_code == 101:
        return response.serialize()
    return _malformed(head)


def _malformed(head: RequestHead) -> Response:
    """The answer to a handshake that the library does not accept, in words that name the field."""
    versions = head.headers.get_all("Sec-WebSocket-Version")
    if versions not in ([], ["13"]):
        return text_response(
            426,
            "only WebSocket version 13 is spoken here",
            ("Sec-WebSocket-Version", "13"),
            ("Upgrade", "websocket"),
        )
    if not versions:
        return text_response(400, "Sec-WebSocket-Version is missing")
    if head.tokens("Upgrade") != ["websocket"]:
        return text_response(400, "Upgrade must be websocket and nothing else")
    return text_response(400, "Sec-WebSocket-Key must be given once: 16 bytes in base64")
