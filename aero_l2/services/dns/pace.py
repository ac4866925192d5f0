"""One tunnel's share of the event loop for what upstreams say."""

import asyncio
from typing import Final

REST: Final = 5
"""For each microsecond of cost so many pass until the tunnel's next answer has its turn: a guest who knows a
name with many records could otherwise keep the loop that all tunnels share busy all the time."""
SHARED_BYTE_COST: Final = 2
"""To write an answer once more, per byte: what addresses cost, the dearest."""
KEPT_BYTE_COST: Final = 6
"""To read one that was kept and write it, per byte."""


class Pace:
    """Lets the answers of one tunnel be read one after the other. Use on one event loop."""

    def __init__(self) -> None:
        """The first one goes at once."""
        self._turn = asyncio.Lock()
        self._free = 0.0

    async def take(self, cost: int) -> None:
        """Wait for the turn of something that costs `cost` microseconds (`aero_l2.services.dns.cost`).

        Who is cancelled meanwhile, because the lookup took too long, has used nothing up.
        """
        loop = asyncio.get_running_loop()
        async with self._turn:
            rest = self._free - loop.time()
            if rest > 0:
                await asyncio.sleep(rest)
            self._free = loop.time() + cost * REST / 1e6
