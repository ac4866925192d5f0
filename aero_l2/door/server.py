"""The listener: accepts connections, bounds those that have not become tunnels, drains on shutdown."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import structlog

from aero_l2.config import Settings
from aero_l2.door.connection import Connection
from aero_l2.door.endpoints import BuildInfo, Endpoints, Readiness
from aero_l2.door.handshake import DoorRules
from aero_l2.door.http import RequestHead, Response
from aero_l2.door.sessions import SESSION_PATH, Moment, SessionIssuer
from aero_l2.door.waiting import Waiting
from aero_l2.observe.limit import LimitedLog
from aero_l2.observe.metrics import Metrics
from aero_l2.quota.rate import RateLimit
from aero_l2.session.closing import Reason
from aero_l2.session.keepalive import PING_INTERVAL_S
from aero_l2.session.ports import SegmentOpener
from aero_l2.session.registry import PermitLimits
from aero_l2.session.tunnel import TunnelOptions
from aero_l2.session.tunnels import Tunnels
from aero_l2.web.forwarded import Via, client_group
from aero_l2.wire.framing import Framing, FramingName, framing
from aero_l2.wire.tunnel import Limits

MAX_WAITING: Final = 256
BACKLOG: Final = 512


class DoorServer:
    """A listening door; made by `serve`.

    Connections that are not tunnels (yet) are bounded by `max_waiting`: one more drops the one that has
    waited longest of the client with the most, so that clients which never finish their request, or open
    connections as fast as they can, do not keep others out.
    """

    def __init__(
        self, tunnels: Tunnels, endpoints: Endpoints, settings: Settings, *, max_waiting: int = MAX_WAITING
    ) -> None:
        self.tunnels = tunnels
        self.endpoints = endpoints
        self.metrics: Metrics = endpoints.metrics
        self.log = LimitedLog(structlog.get_logger("aero_l2.door"))
        self._limits = Limits(settings.max_frame_payload, settings.max_control_payload)
        self.grace_s = settings.shutdown_grace_ms / 1000
        self.attempts = RateLimit(settings.upgrades_per_minute_per_ip)
        self.sessions = SessionIssuer(settings)
        self._waiting: Waiting[Connection] = Waiting(max_waiting)
        self._upgrading: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        """Judge by these settings from now on; who is inside stays."""
        self.rules = DoorRules.of(settings)
        self.endpoints.raw_frames = settings.raw_frames
        self.close_on_expiry = settings.close_on_expiry
        self.head_timeout_s = settings.upgrade_timeout_ms / 1000
        self.max_head_bytes = settings.max_header_bytes
        self.attempts.per_minute = settings.upgrades_per_minute_per_ip
        self.sessions.settings = settings
        self.sessions.rate.per_minute = settings.sessions_per_minute_per_ip
        self.tunnels.permits.limits = permit_limits(settings)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Addresses and ports that are listened on."""
        sockets = self._server.sockets if self._server is not None else ()
        return [sock.getsockname()[:2] for sock in sockets]

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self.addresses[0][1]

    @property
    def active(self) -> int:
        """Tunnels that are held, those being made or unmade included."""
        return self.tunnels.active

    async def listen(self, host: str, port: int) -> None:
        """Start to accept connections.

        Raises:
            OSError: the address cannot be bound.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self), host, port, backlog=BACKLOG, reuse_address=True
        )

    async def shutdown(self) -> None:
        """Drain: refuse new tunnels, close the open ones with 1001, wait up to `grace_s`, stop listening.

        The listener answers until the end. Tunnels that are left after the grace time are cancelled, and
        releasing what they hold is awaited.
        """
        self.endpoints.draining = True
        for connection in tuple(self._upgrading):
            connection.refuse_for_shutdown()
        self.tunnels.close_all(Reason.SHUTDOWN)
        await self.tunnels.wait_ended(self.grace_s)
        await self.close()

    async def close(self) -> None:
        """Stop at once: no listener, no connection, no tunnel is left."""
        self.endpoints.draining = True
        if self._server is not None:
            self._server.close()
        for connection in (*self._waiting, *self._upgrading):
            connection.drop()
        await self.tunnels.cancel_all()
        self.log.close()

    # -- Door, for connections

    def respond(self, head: RequestHead, how: Via) -> Response | None:
        """The answer to a request, None where it asks for a tunnel and the upgrade has to decide."""
        if head.path == SESSION_PATH and self.sessions.settings.session_endpoint:
            return self._answer_session(head, how)
        return self.endpoints.route(head)

    def _answer_session(self, head: RequestHead, how: Via) -> Response:
        moment = Moment(time.time(), time.monotonic())
        response = self.sessions.answer(head, how, self.rules, moment, draining=self.endpoints.draining)
        if head.method == "POST" and response.status == 200:
            self.metrics.session_cookies_issued.inc()
        elif response.status >= 400:
            self.metrics.session_cookies_refused.inc()
            text = response.body.decode()
            kind, client = text.partition(":")[0], client_group(how.client)
            self.log.write("info", "session refused", text, kind=kind, client=client, status=response.status)
        return response

    def framing(self, name: FramingName) -> Framing:
        """How the frames of a tunnel travel."""
        return framing(name, self._limits)

    def waits(self, connection: Connection) -> None:
        """Count a connection as waiting; `Waiting` says which one goes if that is one too many."""
        self._upgrading.discard(connection)
        evicted = self._waiting.add(connection, client_group(connection.address))
        if evicted is not None:
            evicted.drop()

    def entered(self, connection: Connection) -> None:
        """A connection is becoming a tunnel; the permits bound those."""
        self._waiting.discard(connection)
        self._upgrading.add(connection)

    def left(self, connection: Connection) -> None:
        """A connection is gone or a tunnel."""
        self._waiting.discard(connection)
        self._upgrading.discard(connection)


async def serve(
    settings: Settings,
    opener: SegmentOpener,
    readiness: Readiness,
    metrics: Metrics,
    *,
    max_waiting: int = MAX_WAITING,
    ping_interval_s: float = PING_INTERVAL_S,
) -> DoorServer:
    """Listen as `settings` say, making tunnels' segments by `opener`.

    `max_waiting`: connections that are not tunnels (yet), at most. `ping_interval_s`: between WebSocket
    pings, where the server sends them.

    Raises:
        OSError: the address cannot be bound.
    """
    options = TunnelOptions(
        connect_timeout_s=settings.tcp_connect_timeout_ms / 1000,
        stall_timeout_s=settings.send_stall_timeout_ms / 1000,
        library_only=settings.receive_path == "library",
        packets_per_second=settings.max_packets_per_second,
        packets_burst=settings.max_packets_burst or settings.max_packets_per_second,
        ping_interval_s=ping_interval_s,
    )
    tunnels = Tunnels(opener, limits=permit_limits(settings), options=options, metrics=metrics)
    build = BuildInfo(settings.version, settings.git_sha, settings.built_at)
    server = DoorServer(tunnels, Endpoints(build, metrics, readiness), settings, max_waiting=max_waiting)
    await server.listen(*settings.listen)
    return server


def permit_limits(settings: Settings) -> PermitLimits:
    """How many tunnels the settings allow."""
    return PermitLimits(
        process=settings.max_connections,
        client=settings.max_connections_per_ip,
        principal=settings.max_connections_per_session,
    )
