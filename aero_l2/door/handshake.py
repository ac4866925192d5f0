"""The upgrade to a WebSocket: is it well-formed, and who may have a tunnel?

`judge` asks in the order of the specification, and the first refusal answers. The limits on numbers of
tunnels and the making of the tunnel come last and are the permit's and the segment's to refuse
(`refusal_of`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from aero_l2.auth.credentials import read_credentials
from aero_l2.auth.modes import Admitted, AuthRules, Rejected
from aero_l2.auth.modes import judge as judge_credentials
from aero_l2.config import Settings
from aero_l2.door.endpoints import SHUTTING_DOWN, Tunnelled
from aero_l2.door.http import RequestHead, Response, text_response
from aero_l2.errors import AtCapacity, Bound, HourUsedUp, Overloaded, SegmentUnavailable
from aero_l2.observe.metrics import Metrics
from aero_l2.web.echo import echo
from aero_l2.web.forwarded import ProxyTrust, Via, via
from aero_l2.web.host import HostFault, HostRules
from aero_l2.web.origin import OriginFault, OriginRules
from aero_l2.wire.framing import FramingName
from aero_l2.wire.tunnel import SUBPROTOCOL

MISSING_SUBPROTOCOL: Final = f'missing required websocket subprotocol "{SUBPROTOCOL}"'
TOO_MANY_ATTEMPTS: Final = "too many upgrade attempts"
RETRY_AFTER_S: Final = 5

_JUDGED_FIELDS: Final = ("Sec-WebSocket-Key", "Sec-WebSocket-Version")
_REJECTED: Final = "upgrade_rejected"


@dataclass(frozen=True, slots=True)
class DoorRules:
    """Whom to let in; replaced as a whole when the settings change."""

    auth: AuthRules
    origin: OriginRules
    host: HostRules
    trust: ProxyTrust

    @classmethod
    def of(cls, settings: Settings) -> DoorRules:
        """The rules that the settings describe."""
        return cls(settings.auth_rules, settings.origin_rules, settings.host_rules, settings.proxy_trust)

    def via(self, peer: str, head: RequestHead) -> Via:
        """How a request of `peer` reached us, as far as its headers are trusted."""
        return via(peer, head.headers, self.trust)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What is judged: a request, how it came, and the state of the door at that moment.

    tunnelled: what its path asks for. within_rate: asked once, where its turn is; whether the client may try
    again already. overload: asked behind it; why nobody, or not this client, can be taken on now. comes_back:
    asked then; whether it is for a tunnel that stands, and so nothing more to bear.
    """

    head: RequestHead
    via: Via
    tunnelled: Tunnelled = field(default_factory=Tunnelled)
    draining: bool = False
    within_rate: Callable[[], bool] = lambda: True
    overload: Callable[[], Overloaded | None] = lambda: None
    comes_back: Callable[[], bool] = lambda: False
    retry_after_s: int = 1


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an upgrade is refused, and the attributes of `Metrics` that count it.

    reason: labels a 401. detail: for the log only; quotes nothing of a credential. shed: labels a 503.
    limit: what sets the limit of a 429, for the log. principal: whom the credentials name, where they were
    judged before this, for the log too.
    """

    status: int
    text: str
    metrics: tuple[str, ...] = ()
    reason: str | None = None
    detail: str = ""
    retry_after_s: int | None = None
    shed: str | None = None
    limit: str = ""
    principal: str | None = field(default=None, repr=False)

    def response(self) -> Response:
        """The answer to the client."""
        if self.retry_after_s is None:
            return text_response(self.status, self.text)
        return text_response(self.status, self.text, ("Retry-After", str(self.retry_after_s)))

    def fields(self) -> dict[str, object]:
        """What the log says besides status and text."""
        said: dict[str, object] = {"detail": self.detail, "limit": self.limit}
        if self.principal is not None:
            said["principal"] = echo(self.principal)
        if self.status == 429:
            said["retry_after_s"] = self.retry_after_s
        return {name: value for name, value in said.items() if value}

    def count(self, metrics: Metrics) -> None:
        """Count it; the 400s and 503s are not rejections in the metrics."""
        for name in self.metrics:
            getattr(metrics, name).inc()
        if self.reason is not None:
            metrics.auth_reject[self.reason].inc()
        if self.shed is not None:
            metrics.upgrades_shed[self.shed].inc()


_ORIGIN_METRICS: Final = {
    OriginFault.MISSING: "upgrade_reject_origin_missing",
    OriginFault.INVALID: "upgrade_reject_origin_not_allowed",
    OriginFault.NOT_ALLOWED: "upgrade_reject_origin_not_allowed",
}
_HOST_METRICS: Final = {
    HostFault.MISSING: "upgrade_reject_host_missing",
    HostFault.MALFORMED: "upgrade_reject_host_invalid",
    HostFault.NOT_ALLOWED: "upgrade_reject_host_not_allowed",
}
_AT_CAPACITY: Final = {
    Bound.CLIENT: Refusal(
        429,
        "max connections per ip exceeded",
        (_REJECTED, "upgrade_ip_limit_exceeded"),
        limit="AERO_L2_MAX_CONNECTIONS_PER_IP",
    ),
    Bound.PROCESS: Refusal(429, "max connections exceeded", (_REJECTED, "upgrade_reject_max_connections")),
    Bound.PRINCIPAL: Refusal(
        429,
        "quota_connections: max connections per session exceeded",
        (
            _REJECTED,
            "session_connection_denied",
            "upgrade_reject_max_connections_per_session",
            "upgrade_reject_max_tunnels_per_session",
        ),
        limit="AERO_L2_MAX_CONNECTIONS_PER_SESSION",
    ),
}
_HOUR_USED_UP: Final = Refusal(
    429,
    "quota_bytes: hourly byte quota exceeded",
    (_REJECTED, "upgrade_reject_quota_bytes"),
    limit="AERO_L2_MAX_BYTES_PER_PRINCIPAL_HOUR",
)
ENDING: Final = Refusal(503, SHUTTING_DOWN, retry_after_s=RETRY_AFTER_S, shed="shutdown")
"""Of whoever comes, or waits for a tunnel, while the process is about to end."""
FAULT: Final = Refusal(503, "the tunnel could not be made: internal error", shed="failed")


def judge(upgrade: Upgrade, rules: DoorRules, now: float | None = None) -> Refusal | Admitted:
    """Who is let in, or the refusal of the first check that fails; `not_now` and `accept` come before.

    Args:
        now: unix seconds, the clock's if None.
    """
    refusal = _without_subprotocol(upgrade)
    if refusal is not None:
        return refusal
    admitted = judge_credentials(
        rules.auth,
        read_credentials(upgrade.head.query, upgrade.head.headers, upgrade.tunnelled.token),
        upgrade.head.headers.get_all("Origin"),
        time.time() if now is None else now,
    )
    if isinstance(admitted, Rejected):
        return _unauthorized(admitted)
    refusal = refused_by_origin(upgrade.head, upgrade.via, rules) or refused_by_host(upgrade.via, rules)
    return admitted if refusal is None else replace(refusal, principal=admitted.principal)


def not_now(upgrade: Upgrade) -> Refusal | None:
    """Whether any upgrade, or this client's, comes at a bad time: before anything else is looked at."""
    if upgrade.draining:
        return ENDING
    if not upgrade.within_rate():
        metrics = (_REJECTED, "upgrade_reject_rate_limited")
        return Refusal(429, TOO_MANY_ATTEMPTS, metrics, retry_after_s=upgrade.retry_after_s)
    overloaded = upgrade.overload()
    return None if overloaded is None or upgrade.comes_back() else refusal_of(overloaded)


def _without_subprotocol(upgrade: Upgrade) -> Refusal | None:
    """The tunnel protocol must be among the offered ones, spelled exactly (RFC 6455 §4.1); raw needs none."""
    if upgrade.tunnelled.framing == "raw":
        return None
    offered = upgrade.head.elements("Sec-WebSocket-Protocol")
    return None if SUBPROTOCOL in offered else Refusal(400, MISSING_SUBPROTOCOL)


def _unauthorized(rejected: Rejected) -> Refusal:
    nothing = rejected.reason == "missing_credentials"
    kind = "upgrade_reject_auth_missing" if nothing else "upgrade_reject_auth_invalid"
    return Refusal(401, rejected.text, (_REJECTED, "auth_failures", kind), rejected.reason, rejected.detail)


def refused_by_origin(head: RequestHead, how: Via, rules: DoorRules) -> Refusal | None:
    """The 403 of a request whose Origin is not allowed."""
    verdict = rules.origin.judge(head.headers.get_all("Origin"), None if how.host_malformed else how.host)
    if verdict.fault is None:
        return None
    return Refusal(403, verdict.text, (_REJECTED, _ORIGIN_METRICS[verdict.fault]))


def refused_by_host(how: Via, rules: DoorRules) -> Refusal | None:
    """The 403 of a request to a Host that is not ours."""
    verdict = rules.host.judge(how.host, how.scheme, malformed=how.host_malformed)
    if verdict.fault is None:
        return None
    return Refusal(403, verdict.text, (_REJECTED, _HOST_METRICS[verdict.fault]))


def refusal_of(failure: AtCapacity | SegmentUnavailable | Overloaded) -> Refusal:
    """What the client is told when permit, turn or segment is refused."""
    if isinstance(failure, HourUsedUp):
        return replace(_HOUR_USED_UP, retry_after_s=math.ceil(failure.wait_s))
    if isinstance(failure, AtCapacity):
        refusal = _AT_CAPACITY[failure.bound]
        return replace(refusal, limit=failure.by) if failure.by else refusal
    shed = failure.kind if isinstance(failure, Overloaded) else "failed"
    return Refusal(503, failure.reason, shed=shed, retry_after_s=RETRY_AFTER_S)


def accept(head: RequestHead, framing: FramingName = SUBPROTOCOL) -> bytes | Response:
    """The bytes of the 101, or the answer to a malformed handshake.

    websockets judges key and version (RFC 6455 §4.2). It is shown only the fields it needs, with exactly our
    subprotocol offered, or none where frames are raw, and no extension, so nothing else can be negotiated;
    lists are read by us, since a long one costs it 15 ms.
    """
    if head.version != "HTTP/1.1" or head.has_body:
        return text_response(400, "a WebSocket upgrade is an HTTP/1.1 request without a body")
    if head.tokens("Upgrade") != ["websocket"]:
        return text_response(400, "Upgrade must be websocket and nothing else")
    fields = Headers(Connection="Upgrade", Upgrade="websocket")
    for name in _JUDGED_FIELDS:
        for value in head.headers.get_all(name):
            fields[name] = value
    if framing == SUBPROTOCOL:
        fields["Sec-WebSocket-Protocol"] = SUBPROTOCOL
        protocol = ServerProtocol(subprotocols=[Subprotocol(SUBPROTOCOL)])
    else:
        protocol = ServerProtocol()
    protocol.parser.close()  # it and the protocol refer to each other
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
    return text_response(400, "Sec-WebSocket-Key must be given once: 16 bytes in base64")
