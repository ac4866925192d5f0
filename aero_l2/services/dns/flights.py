"""Questions of one tunnel that are under way upstream: whoever asks the same meanwhile shares the answer."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable

from dns.message import Message

from aero_l2.services.dns.pace import Pace


class Flights:
    """Answers that are waited for, by question. Use on one event loop.

    `pace`: when the next of the tunnel's answers has its turn.
    """

    def __init__(self) -> None:
        """None yet."""
        self.pace = Pace()
        self._under_way: dict[Hashable, asyncio.Future[Message | None]] = {}

    def __len__(self) -> int:
        """How many questions are under way."""
        return len(self._under_way)

    def __contains__(self, question: Hashable) -> bool:
        """Whether the same question is under way."""
        return question in self._under_way

    async def share(self, question: Hashable, ask: Callable[[], Awaitable[Message | None]]) -> Message | None:
        """The answer of `ask`, or of the same question's that is under way. Callers must not change it.

        If the one that asks is cancelled, those that wait for it get None.
        """
        flight = self._under_way.get(question)
        if flight is not None:
            return await asyncio.shield(flight)
        flight = self._under_way[question] = asyncio.get_running_loop().create_future()
        answer = None
        try:
            answer = await ask()
        finally:
            del self._under_way[question]
            flight.set_result(answer)
        return answer
