"""Routes a request head to an operational endpoint, to the upgrade, or to an error."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Final, Protocol

from aero_l2.door.http import RequestHead, Response, text_response
from aero_l2.observe.metrics import CONTENT_TYPE, Metrics
from aero_l2.observe.scrape import Scrapes
from aero_l2.quota.capacity import Capacity
from aero_l2.wire.framing import FramingName

TUNNEL_PATHS: Final = frozenset(("/l2", "/l2/", "/eth", "/eth/"))
RAW_PATH: Final = "/v86"
SHUTTING_DOWN: Final = "shutting down"


class Readiness(Protocol):
    """Whether new tunnels can be made."""

    def unready_reason(self) -> str | None:
        """Why not, in words for an operator; None while they can."""


class Bearing(Protocol):
    """What the process can bear."""

    @property
    def capacity(self) -> Capacity:
        """How many tunnels, and by which limit."""

    def unready_reason(self) -> str | None:
        """Why no tunnel more, in words for an operator; None where there is room."""


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """What /version says."""

    version: str
    git_sha: str
    built_at: str


@dataclass(frozen=True, slots=True)
class Tunnelled:
    """What a path says of the tunnel it asks for. token: the credential in it, as sent; empty is none."""

    framing: FramingName = "aero-l2-tunnel-v1"
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Delayed:
    """An answer whose body takes a while; nobody may cancel that, for others may wait for it, too."""

    body: asyncio.Future[bytes]
    content_type: str

    def response(self, body: bytes) -> Response:
        """The answer once the body is there."""
        return Response(200, body, self.content_type)


Answer = Response | Delayed


@dataclass(slots=True)
class Endpoints:
    """State behind the endpoints; `draining` is set when the shutdown begins.

    raw_frames: whether there are tunnels of raw frames, which v86 wants. has_monitor: whether another
    listener answers what is for monitoring.
    """

    build: BuildInfo
    metrics: Metrics
    readiness: Readiness
    draining: bool = False
    raw_frames: bool = False
    pressure: Bearing | None = None
    has_monitor: bool = False
    scrapes: Scrapes = field(init=False)

    def __post_init__(self) -> None:
        self.scrapes = Scrapes(self.metrics)

    def route(self, head: RequestHead) -> Answer | None:
        """The answer to a request, None where it asks for a tunnel and the upgrade has to decide."""
        if self.tunnelled(head.path) is not None:
            if head.method != "GET":
                return text_response(405, "method not allowed", ("Allow", "GET"))
            return None if is_upgrade(head) else text_response(400, "this is a WebSocket endpoint")
        if self.has_monitor and head.path in _MONITORED:
            return text_response(404, "not found")
        return self.monitored(head)

    def monitored(self, head: RequestHead) -> Answer:
        """The answer to a request that cannot be for a tunnel."""
        if head.path not in _ENDPOINTS or (head.path == "/metrics" and not self.metrics.is_on):
            return text_response(404, "not found")
        if head.method not in ("GET", "HEAD"):
            return text_response(405, "method not allowed", ("Allow", "GET, HEAD"))
        return self._answer(head.path)

    def tunnelled(self, path: str) -> Tunnelled | None:
        """The tunnel that a path asks for, None where it is no tunnel's.

        A credential in it is one segment, not decoded; with more behind it the path is nobody's.
        """
        if path in TUNNEL_PATHS:
            return Tunnelled()
        base, token = path[: len(RAW_PATH)], path[len(RAW_PATH) :]
        if not self.raw_frames or base != RAW_PATH or not (token == "" or token.startswith("/")):
            return None
        return Tunnelled("raw", token[1:]) if "/" not in token[1:] else None

    def _answer(self, path: str) -> Answer:
        if path == "/healthz":
            return text_response(200, "ok")
        if path == "/readyz":
            return self._readiness()
        if path == "/metrics":
            return Delayed(self.scrapes.ask(), CONTENT_TYPE)
        build = self.build
        body = {"version": build.version, "gitSha": build.git_sha, "builtAt": build.built_at}
        return Response(200, json.dumps(body).encode(), "application/json")

    def _readiness(self) -> Response:
        if (reason := self.unready_reason()) is not None:
            return text_response(503, reason)
        room = "" if self.pressure is None else f": {self.pressure.capacity.text}"
        return text_response(200, f"ready{room}")

    def unready_reason(self) -> str | None:
        """Why nobody should be sent here now, in words for an operator; None where all is well."""
        reason = SHUTTING_DOWN if self.draining else self.readiness.unready_reason()
        return reason or (self.pressure.unready_reason() if self.pressure is not None else None)


_MONITORED: Final = frozenset(("/readyz", "/version", "/metrics"))
_ENDPOINTS: Final = _MONITORED | {"/healthz"}


def is_upgrade(head: RequestHead) -> bool:
    """Whether a request asks to become a WebSocket at all (RFC 9110 §7.8)."""
    return "upgrade" in head.tokens("Connection") and "websocket" in head.tokens("Upgrade")
