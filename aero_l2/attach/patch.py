"""A machine's port joined to a server's tunnels, one tunnel after the other. asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from aero_l2.attach.rates import View
from aero_l2.attach.relay import Relay
from aero_l2.attach.show import CONNECTING, OPEN, RESUMED, Display
from aero_l2.attach.wires import Wire
from aero_l2.client import ClientError, Options, ReconnectPolicy, State, Status, Target, run_reconnecting

PING_EVERY_S: Final = 5.0
LOOK_EVERY_S: Final = 1.0


class Port(Protocol):
    """Where machines come from: a socket, a TAP."""

    async def run(self, serve: Callable[[Wire], Awaitable[None]]) -> None:
        """Have each machine served while it is there. Raises AttachError."""


class Patch:
    """Keeps a port and a tunnel together.

    usable: set once a tunnel has answered. carrier: told whether there is a tunnel.
    """

    def __init__(
        self,
        target: Target,
        options: Options,
        policy: ReconnectPolicy,
        display: Display,
        carrier: Callable[[bool], None] = lambda on: None,
    ) -> None:
        self.relay = Relay()
        self.usable = asyncio.Event()
        self._target, self._options, self._policy = target, options, policy
        self._display = display
        self._carrier = carrier
        self._opened = asyncio.Event()
        self._opened_at_s: float | None = None
        self._state = State.CONNECTING
        self._rtt_s: float | None = None

    async def run(self, port: Port) -> None:
        """Until cancelled, which closes the tunnel.

        Raises:
            ClientError: there is no tunnel, and trying again is of no use.
            AttachError: the port cannot be used.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(port.run(self.relay.serve_machine), name="port")
                group.create_task(self._tunnels(), name="tunnels")
                group.create_task(self._ping(), name="ping")
                group.create_task(self._look(), name="look")
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _tunnels(self) -> None:
        await run_reconnecting(self._target, self.relay.serve_tunnel, self._options, self._policy, self._told)

    def _told(self, status: Status) -> None:
        self._state = status.state
        is_open = status.state is State.OPEN
        self._opened_at_s = asyncio.get_running_loop().time() if is_open else None
        self._carrier(is_open)
        match status.state:
            case State.CONNECTING if status.attempt == 1:
                self._display.change(CONNECTING, why=self._target.display)
            case State.OPEN:
                self._opened.set()
                resumed = status.tunnel is not None and status.tunnel.is_resumed
                self._display.change(RESUMED if resumed else OPEN)
            case State.WAITING:
                self._rtt_s = None
                self._display.change(
                    "no tunnel",
                    why=str(status.error),
                    attempt=status.attempt,
                    again_in_s=round(status.delay_s, 1),
                )

    async def _ping(self) -> None:
        while True:
            await self._opened.wait()
            self._opened.clear()
            while (tunnel := self.relay.tunnel) is not None:
                try:
                    self._rtt_s = await tunnel.ping(PING_EVERY_S)
                    self.usable.set()
                except TimeoutError:
                    self._rtt_s = None
                    if not self.usable.is_set():
                        self._display.change("no use of the tunnel yet", why="the server answers no PING")
                    continue
                except ClientError:
                    break
                await asyncio.sleep(PING_EVERY_S)

    async def _look(self) -> None:
        while True:
            self._display.look(self._view())
            await asyncio.sleep(LOOK_EVERY_S)

    def _view(self) -> View:
        now_s = asyncio.get_running_loop().time()
        return View(
            counters=self.relay.counters,
            rtt_s=self._rtt_s,
            since_s=None if self._opened_at_s is None else now_s - self._opened_at_s,
            has_machine=self.relay.has_machine,
            state=self._state.value,
        )
