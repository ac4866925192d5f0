"""A second listener for whoever watches: /metrics, /version, /readyz and /healthz, and no tunnels.

Its connections are `Answering`s, which know nothing of upgrades.
"""

from __future__ import annotations

from typing import Final

from aero_l2.config import Settings
from aero_l2.config.values import ListenAddress
from aero_l2.door.answering import Answering
from aero_l2.door.endpoints import Answer, Endpoints
from aero_l2.door.http import RequestHead
from aero_l2.door.listener import Listener
from aero_l2.door.lobby import Lobby
from aero_l2.observe.limit import LimitedLog

MAX_WAITING: Final = 16
"""Connections at once; monitoring has one or two."""


class Monitor:
    """Answers by `endpoints` within the limits that the settings set for the main listener, too."""

    def __init__(self, endpoints: Endpoints, log: LimitedLog) -> None:
        self._endpoints = endpoints
        self.log = log
        self.lobby: Lobby[Answering] = Lobby(MAX_WAITING)
        self._listener = Listener(lambda: Answering(self))

    def apply(self, settings: Settings) -> None:
        """Keep to these limits from now on."""
        self.head_timeout_s = settings.upgrade_timeout_ms / 1000
        self.max_head_bytes = settings.max_header_bytes

    @property
    def address(self) -> tuple[str, int] | None:
        """Where it listens, None where it does not."""
        return next(iter(self._listener.addresses), None)

    async def listen(self, address: ListenAddress) -> None:
        """Start to answer; the other listener leaves it to this one from now on.

        Raises:
            OSError: the address cannot be bound.
        """
        await self._listener.bind(*address)
        self._endpoints.has_monitor = True

    def stop_listening(self) -> None:
        """Accept nobody any more; idempotent."""
        self._listener.close()

    def close(self) -> None:
        """Stop at once."""
        self._listener.close()
        for connection in self.lobby:
            connection.drop()

    # -- Desk, for connections

    def waits(self, connection: Answering) -> None:
        """A connection stands here."""
        self.lobby.enter(connection)

    def left(self, connection: Answering) -> None:
        """It is gone."""
        self.lobby.gone(connection)

    def answer(self, head: RequestHead) -> Answer:
        """What it asked for."""
        return self._endpoints.monitored(head)
