"""The listener: accepts connections, bounds those that have not become tunnels, drains on shutdown."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from aero_l2.config import Settings
from aero_l2.door.connection import HEAD_TIMEOUT_S, Connection
from aero_l2.door.endpoints import BuildInfo, Endpoints, Readiness
from aero_l2.door.waiting import Waiting, client_of
from aero_l2.observe.limit import LimitedLog
from aero_l2.observe.metrics import Metrics
from aero_l2.session.closing import Reason
from aero_l2.session.ports import SegmentOpener
from aero_l2.session.tunnel import TunnelOptions
from aero_l2.session.tunnels import Tunnels
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
        self,
        tunnels: Tunnels,
        endpoints: Endpoints,
        *,
        max_waiting: int = MAX_WAITING,
        head_timeout_s: float = HEAD_TIMEOUT_S,
        grace_s: float = 3.0,
    ) -> None:
        self.tunnels = tunnels
        self.endpoints = endpoints
        self.metrics: Metrics = endpoints.metrics
        self.log = LimitedLog(structlog.get_logger("aero_l2.door"))
        self.head_timeout_s = head_timeout_s
        self.grace_s = grace_s
        self._waiting: Waiting[Connection] = Waiting(max_waiting)
        self._upgrading: set[Connection] = set()
        self._server: asyncio.Server | None = None

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

    def waits(self, connection: Connection) -> None:
        """Count a connection as waiting; `Waiting` says which one goes if that is one too many."""
        self._upgrading.discard(connection)
        evicted = self._waiting.add(connection, client_of(connection.address))
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
) -> DoorServer:
    """Listen as `settings` say, making tunnels' segments by `opener`.

    `max_waiting`: connections that are not tunnels (yet), at most.

    Raises:
        OSError: the address cannot be bound.
    """
    options = TunnelOptions(
        limits=Limits(settings.max_frame_payload, settings.max_control_payload),
        stall_timeout_s=settings.send_stall_timeout_ms / 1000,
        library_only=settings.receive_path == "library",
    )
    tunnels = Tunnels(opener, max_tunnels=settings.max_connections, options=options, metrics=metrics)
    build = BuildInfo(settings.version, settings.git_sha, settings.built_at)
    server = DoorServer(
        tunnels,
        Endpoints(build, metrics, readiness),
        max_waiting=max_waiting,
        grace_s=settings.shutdown_grace_ms / 1000,
    )
    await server.listen(*settings.listen)
    return server
