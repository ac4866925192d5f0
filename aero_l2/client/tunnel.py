"""An open tunnel: frames both ways, PINGs, and how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aero_l2.client.address import Target
from aero_l2.client.errors import TunnelClosed
from aero_l2.client.link import Link, Stats
from aero_l2.client.opening import Options, open_link
from aero_l2.wire.tunnel import FRAME_HEADER


@asynccontextmanager
async def connect(
    url: str | Target, options: Options | None = None, resume_secret: str | None = None
) -> AsyncIterator[Tunnel]:
    """Open a tunnel, and close it on the way out, which takes two seconds at most.

    A Target brings its own credential and Origin; those of the options count for an address.
    ``resume_secret``: of a tunnel that was lost. `Tunnel.is_resumed` says whether this is that one; if the
    server does not have it any more, it is a new one.

    Raises:
        ClientError: see errors.py for the tree; the tunnel's own end is raised by its methods.
    """
    options = options or Options()
    target = Target.of(url, options.credential, options.origin) if isinstance(url, str) else url
    link = await open_link(target, options, resume_secret)
    try:
        yield Tunnel(link, target, options)
    finally:
        await link.close()


class Tunnel:
    """An open tunnel; made by `connect`.

    Frames wait in two bounded queues. A program that does not receive makes the server keep frames back, and
    what does not fit its queue there is lost, as on any Ethernet; a server that can get rid of nothing for
    ten seconds, by its default, closes the tunnel with the ERROR ``backpressure``.
    """

    def __init__(self, link: Link, target: Target, options: Options) -> None:
        self.target = target
        self._link = link
        self._max_frame_bytes = options.max_frame_bytes

    @property
    def stats(self) -> Stats:
        """What it has carried so far."""
        return self._link.stats

    @property
    def resume_secret(self) -> str | None:
        """By which `connect` gets it back, once, if it is lost; None where the server keeps nothing."""
        return self._link.resume_secret

    @property
    def is_resumed(self) -> bool:
        """Whether it goes on with the network of the tunnel that was lost: its connections stand."""
        return self._link.is_resumed

    @property
    def ended(self) -> TunnelClosed | None:
        """Why the tunnel has ended, None while it is open."""
        return self._link.ended.result() if self._link.ended.done() else None

    async def wait_closed(self) -> TunnelClosed:
        """Wait until the tunnel ends; returns why."""
        return await asyncio.shield(self._link.ended)

    async def send_frame(self, frame: bytes) -> None:
        """Send an Ethernet frame, waiting for room in the queue.

        One over `Options.max_frame_bytes` is dropped, and counted: the server would end the tunnel for it.

        Raises:
            TunnelClosed
        """
        if self._is_fit(frame):
            await self._link.put(FRAME_HEADER + frame)
            self._count_sent(frame)

    def offer_frame(self, frame: bytes) -> bool:
        """Send an Ethernet frame if there is room, as a network card would.

        False: it is dropped, and counted; for want of room, or as one over `Options.max_frame_bytes`.

        Raises:
            TunnelClosed
        """
        if not self._is_fit(frame):
            return False
        if not self._link.offer(FRAME_HEADER + frame):
            self.stats.frames_dropped += 1
            return False
        self._count_sent(frame)
        return True

    async def receive_frames(self) -> list[bytes]:
        """All frames that have arrived, waiting for one at least. Raises TunnelClosed."""
        return await self._link.take()

    async def frames(self) -> AsyncIterator[bytes]:
        """Frames one by one, for ever. Raises TunnelClosed."""
        while True:
            yield (await self._link.take(1))[0]

    async def ping(self, timeout_s: float = 5.0) -> float:
        """Seconds until the server answers a PING.

        It waits its turn behind the frames that were sent before, so the answer also says that the server has
        taken them; and behind those that have arrived, if the program does not receive.

        Raises:
            TimeoutError: it did not.
            TunnelClosed
        """
        answered: asyncio.Future[float | None] = asyncio.get_running_loop().create_future()
        payload, message = self._link.ping(answered)
        try:
            async with asyncio.timeout(timeout_s):
                await self._link.put(message)
                rtt_s = await answered
        finally:
            self._link.forget(payload)
        if rtt_s is None:
            raise self._link.ended.result().with_traceback(None)
        return rtt_s

    def _is_fit(self, frame: bytes) -> bool:
        if len(frame) <= self._max_frame_bytes:
            return True
        self.stats.frames_dropped += 1
        return False

    def _count_sent(self, frame: bytes) -> None:
        self.stats.frames_sent += 1
        self.stats.bytes_sent += len(frame)
