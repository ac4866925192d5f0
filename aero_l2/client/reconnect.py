"""One tunnel after the other: when to try again, and who is told. asyncio."""

from __future__ import annotations

import asyncio
import enum
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from aero_l2.client.address import Target
from aero_l2.client.errors import ClientError, TunnelLost
from aero_l2.client.opening import Options
from aero_l2.client.tunnel import Tunnel, connect

LONGEST_ASKED_S: Final = 300.0
"""Seconds that a server's Retry-After is heeded: a mistaken one should not end it all."""


class State(enum.Enum):
    """Where a connection that keeps itself up stands."""

    CONNECTING = "connecting"
    OPEN = "open"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Status:
    """What is told on each change.

    tunnel: of the state OPEN. error, delay_s: of the state WAITING, what went wrong and how long until the
    next attempt. attempt: since the last tunnel that lasted, from 1.
    """

    state: State
    attempt: int
    tunnel: Tunnel | None = None
    error: ClientError | None = None
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    """Exponential backoff with jitter.

    The delay before attempt n+1 lies between half of and the whole of ``first_s * factor**(n-1)``, at most
    ``longest_s``, and is not shorter than the server asks. A tunnel that lasted ``lasting_s`` starts over.
    attempts: failures in a row after which it gives up, 0 = never. resume: where there is a next attempt, the
    server is to keep the network of a lost tunnel for it, as by `Options.resume`.
    """

    first_s: float = 0.5
    factor: float = 2.0
    longest_s: float = 30.0
    lasting_s: float = 10.0
    attempts: int = 0
    resume: bool = True

    def delay_s(self, failures: int, asked_s: float | None, chance: float) -> float:
        """Seconds to wait after so many failures in a row; ``chance`` in [0, 1)."""
        exponent = min(failures - 1, 64)
        longest = min(self.longest_s, self.first_s * self.factor**exponent)
        return max(longest * (0.5 + chance / 2), min(asked_s or 0.0, LONGEST_ASKED_S))

    def gives_up(self, error: ClientError, failures: int) -> bool:
        """Whether there is no next attempt."""
        return not error.retryable or 0 < self.attempts <= failures


async def run_reconnecting(
    target: str | Target | Callable[[], str | Target],
    serve: Callable[[Tunnel], Awaitable[None]],
    options: Options | None = None,
    policy: ReconnectPolicy | None = None,
    told: Callable[[Status], None] = lambda status: None,
) -> None:
    """Open a tunnel, have it served, and open the next when it ends by a ClientError.

    A tunnel that was lost without a close frame is asked for again (`Tunnel.is_resumed`), where the server
    keeps it.

    ``target``: a function is asked before each attempt, for credentials that do not last. ``serve`` should
    end with the TunnelClosed that the tunnel's methods raise. ``told`` hears of each change.

    Returns when ``serve`` returns. Its other errors pass through.

    Raises:
        ClientError: the last one, where `ReconnectPolicy.gives_up`.
    """
    policy = policy or ReconnectPolicy()
    options = options or Options()
    if policy.resume and policy.attempts != 1:
        options = replace(options, resume=True)
    loop = asyncio.get_running_loop()
    failures = 0
    secret: str | None = None
    while True:
        opened_at: float | None = None
        tunnel: Tunnel | None = None
        told(Status(State.CONNECTING, failures + 1))
        try:
            where = target() if callable(target) else target
            async with connect(where, options, secret) as tunnel:
                opened_at = loop.time()
                told(Status(State.OPEN, failures + 1, tunnel=tunnel))
                await serve(tunnel)
                return
        except ClientError as error:
            lasted = opened_at is not None and loop.time() - opened_at >= policy.lasting_s
            failures = 1 if lasted else failures + 1
            if tunnel is not None:
                secret = tunnel.resume_secret if isinstance(error, TunnelLost) else None
            if policy.gives_up(error, failures):
                raise
            delay_s = policy.delay_s(failures, error.retry_after_s, random.random())
            told(Status(State.WAITING, failures, error=error, delay_s=delay_s))
        await asyncio.sleep(delay_s)
