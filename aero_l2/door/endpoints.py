"""Routes a request head to an operational endpoint, to the upgrade, or to an error. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Final, Protocol

from aero_l2.door.http import RequestHead, Response, text_response
from aero_l2.observe.metrics import CONTENT_TYPE, Metrics
from aero_l2.wire.framing import FramingName

TUNNEL_PATHS: Final = frozenset(("/l2", "/l2/", "/eth", "/eth/"))
RAW_PATH: Final = "/v86"
SHUTTING_DOWN: Final = "shutting down"


class Readiness(Protocol):
    """Whether new tunnels can be made."""

    def unready_reason(self) -> str | None:
        """Why not, in words for an operator; None while they can."""


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


@dataclass(slots=True)
class Endpoints:
    """State behind the endpoints; `draining` is set when the shutdown begins.

    raw_frames: whether there are tunnels of raw frames, which v86 wants.
    """

    build: BuildInfo
    metrics: Metrics
    readiness: Readiness
    draining: bool = False
    raw_frames: bool = False

    def route(self, head: RequestHead) -> Response | None:
        """The answer to a request, None where it asks for a tunnel and the upgrade has to decide."""
        if self.tunnelled(head.path) is not None:
            if head.method != "GET":
                return text_response(405, "method not allowed", ("Allow", "GET"))
            return None if is_upgrade(head) else text_response(400, "this is a WebSocket endpoint")
        if head.path not in _ENDPOINTS:
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

    def _answer(self, path: str) -> Response:
        if path == "/healthz":
            return text_response(200, "ok")
        if path == "/readyz":
            reason = SHUTTING_DOWN if self.draining else self.readiness.unready_reason()
            return text_response(200, "ready") if reason is None else text_response(503, reason)
        if path == "/metrics":
            return Response(200, self.metrics.render(), CONTENT_TYPE)
        build = self.build
        body = {"version": build.version, "gitSha": build.git_sha, "builtAt": build.built_at}
        return Response(200, json.dumps(body).encode(), "application/json")


_ENDPOINTS: Final = frozenset(("/healthz", "/readyz", "/version", "/metrics"))


def is_upgrade(head: RequestHead) -> bool:
    """Whether a request asks to become a WebSocket at all (RFC 9110 §7.8)."""
    return "upgrade" in head.tokens("Connection") and "websocket" in head.tokens("Upgrade")
