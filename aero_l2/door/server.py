"""The listener: accepts connections, bounds those that have not become tunnels, drains on shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog

from aero_l2.config import Settings
from aero_l2.config.values import ListenAddress
from aero_l2.door.answering import Answering
from aero_l2.door.connection import Connection
from aero_l2.door.endpoints import Answer, BuildInfo, Endpoints, Readiness
from aero_l2.door.handshake import DoorRules, Refusal
from aero_l2.door.http import RequestHead, Response
from aero_l2.door.listener import Listener
from aero_l2.door.lobby import Lobby
from aero_l2.door.monitor import Monitor
from aero_l2.door.pressure import HostRoom, Pressure
from aero_l2.door.sessions import SESSION_PATH, Moment, SessionIssuer
from aero_l2.errors import Overloaded
from aero_l2.observe.audit.log import AuditLog
from aero_l2.observe.capture.captures import Captures
from aero_l2.observe.limit import LimitedLog
from aero_l2.observe.metrics import Metrics
from aero_l2.quota.capacity import Room, capacity
from aero_l2.quota.files import FileBudget
from aero_l2.quota.rate import RateLimit
from aero_l2.quota.turns import TurnLimits
from aero_l2.session.closing import Reason
from aero_l2.session.keepalive import PING_INTERVAL_S
from aero_l2.session.options import TunnelOptions
from aero_l2.session.ports import SegmentOpener
from aero_l2.session.registry import PermitLimits
from aero_l2.session.tunnels import Tunnels
from aero_l2.tasks import unless
from aero_l2.web.forwarded import Via, client_group
from aero_l2.wire.framing import Framing, FramingName, framing
from aero_l2.wire.tunnel import Limits

MAX_WAITING: Final = 256
LAST_ANSWERS_S: Final = 1.0
"""How long those who came in time, and have not asked yet, may take to do so when all else has ended."""

_ACCEPTED_S: Final = 0.02


class DoorServer:
    """A listening door; made by `serve`.

    Connections that are not tunnels (yet) are bounded by `max_waiting`: one more drops the one that has
    waited longest of the client with the most, so that clients which never finish their request, or open
    connections as fast as they can, do not keep others out.
    """

    def __init__(
        self,
        tunnels: Tunnels,
        endpoints: Endpoints,
        settings: Settings,
        *,
        max_waiting: int = MAX_WAITING,
        ws_ping_interval_s: float = PING_INTERVAL_S,
        files: int = 0,
        room: HostRoom = lambda _: Room(),
        captures: Captures | None = None,
        audit: AuditLog | None = None,
    ) -> None:
        self._captures = captures
        self._audit = audit
        self.tunnels = tunnels
        self.endpoints = endpoints
        self.metrics: Metrics = endpoints.metrics
        self.log = LimitedLog(structlog.get_logger(component="door"))
        self._limits = Limits(settings.max_frame_payload, settings.max_control_payload)
        self.attempts = RateLimit(settings.upgrades_per_minute_per_ip)
        self.sessions = SessionIssuer(settings)
        self._lobby: Lobby[Answering] = Lobby(max_waiting)
        self._upgrading: set[Connection] = set()
        self.monitor = Monitor(endpoints, self.log)
        self._ws_ping_interval_s = ws_ping_interval_s
        self._listener = Listener(lambda: Connection(self))
        self.pressure = Pressure(
            settings, self.metrics, room, lambda: tunnels.standing, files, lambda: tunnels.active
        )
        endpoints.pressure = self.pressure
        endpoints.scrapes.looks.append(self.pressure.look)
        tunnels.setups.room = lambda: self.pressure.no_room(tunnels.standing + tunnels.setups.active - 1)
        self.metrics.setups_active.set_function(lambda: tunnels.setups.active)
        self.metrics.ready.set_function(lambda: endpoints.unready_reason() is None)
        self.metrics.setups_waiting.set_function(lambda: tunnels.setups.waiting)
        self.apply(settings, files)

    def apply(self, settings: Settings, files: int = 0) -> None:
        """Judge by these settings from now on; who is inside stays. files: see `Pressure`."""
        self.pressure.apply(settings, files)
        self.tunnels.setups.limits = TurnLimits(settings.max_setups, settings.max_waiting_setups)
        self.rules = DoorRules.of(settings)
        self.endpoints.raw_frames = settings.raw_frames
        self.drain_s = settings.drain_ms / 1000
        self.grace_s = settings.shutdown_grace_ms / 1000
        self.close_on_expiry = settings.close_on_expiry
        self.monitor.apply(settings)
        self.head_timeout_s = settings.upgrade_timeout_ms / 1000
        self.max_head_bytes = settings.max_header_bytes
        self.attempts.per_minute = settings.upgrades_per_minute_per_ip
        self.sessions.settings = settings
        self.sessions.rate.per_minute = settings.sessions_per_minute_per_ip
        self.tunnels.permits.limits = permit_limits(settings, files)
        self.tunnels.hours.limit = settings.max_bytes_per_principal_hour
        self.tunnels.options = TunnelOptions.of(
            settings, ws_ping_interval_s=self._ws_ping_interval_s, captures=self._captures
        )

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Addresses and ports that are listened on."""
        return self._listener.addresses

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self.addresses[0][1]

    @property
    def active(self) -> int:
        """Tunnels that are held, those being made or unmade included."""
        return self.tunnels.active

    async def listen(self, address: ListenAddress, sockets: Sequence[socket.socket] = ()) -> None:
        """Start to accept connections there, or on `sockets` if there are any.

        Raises:
            OSError: the address cannot be bound.
        """
        await (self._listener.take(sockets) if sockets else self._listener.bind(*address))
        self.pressure.start()

    async def shutdown(self, at_once: asyncio.Event | None = None) -> int:
        """Refuse new tunnels, let the open ones live for up to `drain_s`, close them with 1001, wait up to
        `grace_s`, stop listening.

        The listener answers until the end, and who has connected by then is answered too. Tunnels that are
        left after the grace time are cancelled, and releasing what they hold is awaited. Once `at_once` is
        set nobody is waited for. Returns how many tunnels had not ended by themselves.
        """
        hurry = at_once or asyncio.Event()
        self.endpoints.draining = True
        self.tunnels.keep_no_more()
        for connection in tuple(self._upgrading):
            connection.refuse_for_shutdown()
        await unless(hurry, self.tunnels.wait_ended(self.drain_s))
        closed = self.tunnels.standing
        self.tunnels.close_all(Reason.SHUTDOWN)
        await unless(hurry, self.tunnels.wait_ended(self.grace_s))
        self._listener.close()
        self.monitor.stop_listening()
        await unless(hurry, self._last_answers())
        await self.close()
        return closed

    async def _last_answers(self) -> None:
        """What is accepted becomes a connection a few turns of the loop later, and asks when it likes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_ANSWERS_S):
                await asyncio.sleep(_ACCEPTED_S)
                await self._lobby.emptied()
                await self.monitor.lobby.emptied()

    async def close(self) -> None:
        """Stop at once: no listener, no connection, no tunnel is left."""
        self.endpoints.draining = True
        self._listener.close()
        self.pressure.stop()
        self.monitor.close()
        for connection in (*self._lobby, *self._upgrading):
            connection.drop()
        await self.tunnels.cancel_all()
        self.log.close()

    # -- Door, for connections

    def respond(self, head: RequestHead, how: Via) -> Answer | None:
        """The answer to a request, None where it asks for a tunnel and the upgrade has to decide."""
        if head.path == SESSION_PATH and self.sessions.settings.session_endpoint:
            return self._answer_session(head, how)
        return self.endpoints.route(head)

    def answer(self, head: RequestHead) -> Answer:
        """The answer to a request that asks for no tunnel."""
        return self.endpoints.monitored(head)

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

    def refused(self, refusal: Refusal, who: Mapping[str, Any]) -> None:
        """An upgrade is: count it, and have it in the logs with these fields."""
        refusal.count(self.metrics)
        text, kind = refusal.text, refusal.text.partition(":")[0]
        self.log.write("info", "upgrade refused", text, kind=kind, status=refusal.status, **who)
        if self._audit is not None:
            self._audit.refused(who.get("client", ""), refusal.status, text, kind, who.get("principal"))

    def overload(self, client: str) -> Overloaded | None:
        """Why nobody, or not this client, can be taken on now."""
        late = self.pressure.too_late()
        if late is not None:
            return Overloaded("lag", late)
        busy = self.tunnels.setups.refusal(client)
        return None if busy is None else Overloaded("setups", busy)

    def framing(self, name: FramingName) -> Framing:
        """How the frames of a tunnel travel."""
        return framing(name, self._limits)

    def waits(self, connection: Answering) -> None:
        """Count a connection as waiting, in place of one of those that do if that is one too many."""
        if isinstance(connection, Connection):
            self._upgrading.discard(connection)
        self._lobby.enter(connection)

    def entered(self, connection: Connection) -> None:
        """A connection is becoming a tunnel; the permits bound those."""
        self._lobby.leave(connection)
        self._upgrading.add(connection)

    def left(self, connection: Answering) -> None:
        """A connection is gone or a tunnel."""
        if isinstance(connection, Connection):
            self._upgrading.discard(connection)
        self._lobby.gone(connection)


async def serve(
    settings: Settings,
    opener: SegmentOpener,
    readiness: Readiness,
    metrics: Metrics,
    *,
    budget: FileBudget | None = None,
    room: HostRoom = lambda _: Room(),
    ping_interval_s: float = PING_INTERVAL_S,
    sockets: Sequence[socket.socket] = (),
    captures: Captures | None = None,
    audit: AuditLog | None = None,
) -> DoorServer:
    """Listen as `settings` say, making tunnels' segments by `opener`.

    `budget`: what the file descriptors suffice for, `room`: what the host has for so many tunnels; nothing
    limits them by default. `ping_interval_s`: between WebSocket pings, where the server sends them.
    `sockets`: listen on these instead, owned from now on. `captures`: what captures tunnels.
    `audit`: the audit log, if there is one.

    Raises:
        OSError: the address cannot be bound.
    """
    files, waiting = (budget.tunnels, budget.waiting) if budget is not None else (0, MAX_WAITING)
    limits = permit_limits(settings, files)
    tunnels = Tunnels(opener, limits=limits, options=TunnelOptions(), metrics=metrics, audit=audit)
    build = BuildInfo(settings.version, settings.git_sha, settings.built_at)
    metrics.describe_build(build.version, build.git_sha, build.built_at)
    server = DoorServer(
        tunnels,
        Endpoints(build, metrics, readiness),
        settings,
        max_waiting=waiting,
        ws_ping_interval_s=ping_interval_s,
        files=files,
        room=room,
        captures=captures,
        audit=audit,
    )
    await server.listen(settings.listen, sockets)
    return server


def permit_limits(settings: Settings, files: int) -> PermitLimits:
    """How many tunnels the settings allow, and no more than file descriptors suffice for (0: any number)."""
    shares = capacity(settings.max_connections, files, Room(), 0)
    binding = shares.shares[shares.binding or "setting"]
    return PermitLimits(
        process=binding.tunnels or 0,
        client=settings.max_connections_per_ip,
        principal=settings.max_connections_per_session,
        process_by=binding.by,
    )
