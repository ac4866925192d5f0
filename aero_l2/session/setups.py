"""Setting tunnels up: so many at a time, and none that the host has no room for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from aero_l2.errors import Overloaded
from aero_l2.quota.turns import TurnLimits, Turns

PATIENCE_S: Final = 20.0
"""So long a set-up may wait for its turn; by then the client has mostly given up."""
BUSY: Final = "too many tunnels are being set up; try again"
NO_TURN: Final = f"no tunnel could be set up within {PATIENCE_S:.0f} s; try again"

Room = Callable[[], str | None]
"""Why the host has no room for one tunnel more, in words for people; None while it has."""


class Setups:
    """Whoever sets a tunnel up does so within `turn`; others wait in order (`aero_l2.quota.turns`)."""

    def __init__(self, limits: TurnLimits, room: Room = lambda: None) -> None:
        self._turns: Turns[asyncio.Future[str | None]] = Turns(limits)
        self.room = room

    @property
    def limits(self) -> TurnLimits:
        """Set-ups at once and those that wait; new ones take effect at once, and who waits stays."""
        return self._turns.limits

    @limits.setter
    def limits(self, limits: TurnLimits) -> None:
        self._turns.limits = limits
        self._hand_on()

    @property
    def active(self) -> int:
        """Tunnels that are being set up."""
        return self._turns.at_it

    @property
    def waiting(self) -> int:
        """Tunnels that wait for that."""
        return self._turns.waiting

    def refusal(self, client: str) -> str | None:
        """What `turn` would refuse `client` with at once, so that no more need be looked at."""
        return BUSY if self._turns.is_full(client) else None

    def turn(self, client: str) -> AbstractAsyncContextManager[None]:
        """Wait for a turn, and hold it until the block ends, however it ends.

        Raises, on entering:
            Overloaded: too many wait, it took too long, or the host has no room.
        """
        return self._turn(client)

    @asynccontextmanager
    async def _turn(self, client: str) -> AsyncIterator[None]:
        mine: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        pushed_out = self._turns.join(mine, client)
        if pushed_out is mine:
            raise Overloaded("setups", BUSY)
        if pushed_out is not None and not pushed_out.done():
            pushed_out.set_result(BUSY)
        try:
            self._hand_on()
            await _patiently(mine)
            no_room = self.room()
            if no_room is not None:
                raise Overloaded("room", no_room)
            yield
        finally:
            self._turns.leave(mine)
            self._hand_on()

    def _hand_on(self) -> None:
        while (one := self._turns.next()) is not None:
            if one.done():  # cancelled or late, and about to leave
                self._turns.leave(one)
            else:
                one.set_result(None)


async def _patiently(mine: asyncio.Future[str | None]) -> None:
    """Wait for the turn; its result says why there is none. Raises Overloaded."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            refused = mine.result() if mine.done() else await mine
    except TimeoutError:
        refused = NO_TURN
    if refused is not None:
        raise Overloaded("setups", refused)
