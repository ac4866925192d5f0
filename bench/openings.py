"""A client that opens many tunnels: ``python -m bench.openings COUNT AT_ONCE``.

Reads a line of URLs, which may hold a token and so stand in no command line. Prints ``ready``, waits for a
line, opens COUNT tunnels, AT_ONCE at a time, of all servers in turn, and prints as JSON what it took and the
milliseconds from TCP connect to DHCP offer of each. Keeps them until another line comes, then closes them and
prints the seconds that took.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import ssl
import sys
import time

from aero_l2.client.address import Target
from aero_l2.probe import dhcp
from aero_l2.services.dhcp import codec
from bench import wire

PATIENCE_S = 60
"""For one tunnel: beyond that it has failed."""


class Silent(wire.TunnelRefused):
    """Not even an HTTP answer came."""


def limit_s(count: int) -> float:
    """For so many tunnels: beyond that the server, or what is between, is not fit for it."""
    return 2 * PATIENCE_S + count


class Openings:
    """Opens tunnels and keeps them."""

    def __init__(self, targets: list[Target], at_once: int, patience_s: float = PATIENCE_S) -> None:
        self._targets = targets
        self._tls = ssl.create_default_context() if any(one.is_tls for one in targets) else None
        self._at_once = at_once
        self._patience_s = patience_s
        self._is_silent = False
        self._writers: list[asyncio.StreamWriter] = []
        self.times: list[float] = []
        self.errors: list[str] = []

    async def run(self, count: int, limit_s: float) -> None:
        """Open them all, or until the first server that says nothing."""
        numbers = iter(range(count))

        async def worker() -> None:
            for number in numbers:
                try:
                    self.times.append(await self._one(number))
                except wire.TunnelRefused as error:
                    self.errors.append(str(error))
                    self._is_silent |= isinstance(error, Silent)
                if self._is_silent:
                    return

        try:
            async with asyncio.timeout(limit_s):
                await asyncio.gather(*(worker() for _ in range(self._at_once)))
        except TimeoutError:
            self.errors.append(f"not all tunnels were open after {limit_s:g} s")

    async def _one(self, number: int) -> float:
        """Milliseconds. Raises TunnelRefused."""
        target = self._targets[number % len(self._targets)]
        upgrade, question = wire.request(target), wire.discover(number)
        has_answered = False
        try:
            async with asyncio.timeout(self._patience_s):
                began = time.perf_counter()
                reader, writer = await self._connected(target)
                writer.write(upgrade)
                head = await reader.readuntil(b"\r\n\r\n")
                has_answered = True
                wire.check_answer(target, head)
                writer.write(question)
                await self._offered(target, reader, number)
                return (time.perf_counter() - began) * 1000
        except TimeoutError:
            if has_answered:
                raise wire.refused(target, f"no offer within {self._patience_s:g} s") from None
            raise Silent(f"{target.display}: no answer within {self._patience_s:g} s") from None
        except asyncio.LimitOverrunError:
            raise wire.refused(target, wire.LONG_HEAD) from None
        except asyncio.IncompleteReadError as error:
            wire.check_answer(target, error.partial)
            raise wire.refused(target, "the connection ended within its answer") from None
        except (OSError, UnicodeError) as error:
            raise wire.refused(target, str(error) or type(error).__name__) from None

    async def _connected(self, target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        tls = self._tls if target.is_tls else None
        both = await asyncio.open_connection(*wire.endpoint(target), ssl=tls, limit=wire.HEAD_MAX)
        self._writers.append(both[1])
        return both

    @staticmethod
    async def _offered(target: Target, reader: asyncio.StreamReader, number: int) -> None:
        frames = wire.Frames()
        while data := await reader.read(65536):
            for frame in frames.feed(data):
                answer = wire.dhcp_in(frame, number)
                if answer is not None and answer.kind == codec.NAK:
                    raise wire.refused(target, dhcp.why_refused(answer))
                if answer is not None and answer.kind == codec.OFFER:
                    return
        raise wire.refused(target, "the tunnel was closed before there was an offer")

    async def close(self) -> None:
        """Close them all, without a close frame, as a browser whose tab is closed does."""
        for writer in self._writers:
            writer.close()
        for writer in self._writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _line() -> str:
    return await asyncio.to_thread(sys.stdin.readline)


async def main(count: int, at_once: int) -> None:
    """Open, wait, close."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    openings = Openings([wire.target_of(url) for url in (await _line()).split()], at_once)
    _say("ready")
    await _line()
    began = time.monotonic()
    await openings.run(count, limit_s(count) - PATIENCE_S)
    times = openings.times
    took = {"seconds": time.monotonic() - began, "times": times}
    _say(json.dumps({**took, "failed": count - len(times), "errors": openings.errors[:10]}))
    await _line()
    began = time.monotonic()
    await openings.close()
    _say(json.dumps({"seconds": time.monotonic() - began}))
    await _line()


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
