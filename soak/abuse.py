"""Clients that behave badly, one process for all: ``python -m soak.abuse``; as `soak.clients`.

Each takes one act after the other, by chance, on a connection of its own. An act that the server answers with
something other than it should is a fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "tests"))

from support import floods, storm

from aero_l2.client.address import Target
from bench import wire
from soak.clients import Assignment, Result, serve

ANSWER_S = 15.0
FLOOD_S = 2.0
_CHUNKS = {kind: b"".join(floods.messages(kind, 400)) for kind in floods.ALL}
_RESET = struct.pack("ii", 1, 0)
_HELD_S = 3.0


class Answered(Exception):
    """The server did something else than it should."""


class Rude:
    """One connection: opened, and left without a word."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def opened(self, target: Target) -> None:
        """Have the upgrade done. Raises wire.TunnelRefused."""
        self.writer.write(wire.request(target))
        async with asyncio.timeout(2 * ANSWER_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
        wire.check_answer(target, head)

    async def close_code(self) -> int:
        """Wait for the close frame; 1006 where none comes before the end."""
        data = b""
        async with asyncio.timeout(ANSWER_S):
            while more := await self.reader.read(65536):
                data += more
        at = 0
        while at + 2 <= len(data):
            size, skip = data[at + 1], 2
            if size == wire.WIDE:
                size, skip = int.from_bytes(data[at + 2 : at + 4]), 4
            if data[at] == 0x88 and size >= 2:
                return int.from_bytes(data[at + skip : at + skip + 2])
            at += skip + size
        return 1006

    async def sending(self, data: bytes, seconds: float) -> None:
        """Send it round and round, and forget what comes back, but answer ARP."""
        end = time.monotonic() + seconds

        async def forget() -> None:
            while came := await self.reader.read(1 << 18):
                if floods.ARP_QUESTION in came:
                    self.writer.write(floods.ARP_REPLY)

        forgetting = asyncio.create_task(forget())
        try:
            while time.monotonic() < end and not forgetting.done():
                self.writer.write(data)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, end - time.monotonic())):
                        await self.writer.drain()
                await asyncio.sleep(0)
        finally:
            forgetting.cancel()
            await asyncio.gather(forgetting, return_exceptions=True)


class Abuser:
    """One client that behaves badly."""

    def __init__(self, order: Assignment, number: int, result: Result) -> None:
        self._target = Target.of(order.url, origin="http://soak.test")
        self._chance = random.Random(f"{order.seed} abusive {number}")
        self._result = result
        self._end = time.monotonic() + order.seconds

    async def run(self) -> None:
        """One act after the other."""
        acts = (self.flood, self.flood, self.malformed, self.deaf, self.slow_reader, self.slow_sender)
        acts += (self.half_a_request, self.early_leaver, self.garbage, self.hoard, self.byes)
        while time.monotonic() < self._end:
            act: Callable[[], Awaitable[None]] = self._chance.choice(acts)
            await self._do(act.__name__.replace("_", " "), act)

    async def run_in_step(self) -> None:
        """Every flood and being deaf, one after the other, each at the time that others have it, too."""
        acts: list[tuple[str, Callable[[float], Awaitable[None]]]] = [("deaf", self._deaf_for)]
        acts += [(f"flood: {kind}", partial(self._flood_for, kind)) for kind in floods.ALL]
        began, step_s = time.monotonic(), (self._end - time.monotonic()) / len(acts)
        for number, (name, act) in enumerate(acts, start=1):
            while (left_s := began + number * step_s - time.monotonic()) > 0:
                await self._do(name, partial(act, left_s))

    async def _do(self, name: str, act: Callable[[], Awaitable[None]]) -> None:
        self._result.did[f"abuse: {name}"] += 1
        try:
            await act()
        except wire.TunnelRefused as refusal:
            if " 429 " not in f"{refusal} " and " 503 " not in f"{refusal} ":
                self._result.fault(f"{name}: {refusal}")
            self._result.did["abuse: refused"] += 1
            await asyncio.sleep(0.5)
        except (Answered, TimeoutError) as fault:
            self._result.fault(f"{name}: {fault!r}")
        except (asyncio.IncompleteReadError, OSError):
            self._result.did["abuse: reset"] += 1

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Rude]:
        """Left by a FIN, a RST, or a FIN that comes before everything is sent."""
        reader, writer = await asyncio.open_connection(*wire.endpoint(self._target), limit=1 << 18)
        try:
            yield Rude(reader, writer)
        finally:
            with contextlib.suppress(OSError, TimeoutError):  # the server may have been first
                if self._chance.random() < 0.5:
                    sock = writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                (writer.transport.abort if self._chance.random() < 0.5 else writer.close)()
                async with asyncio.timeout(_HELD_S):  # what nobody reads keeps a close waiting
                    await writer.wait_closed()

    async def flood(self) -> None:
        """Anything, as fast as it goes."""
        await self._flood_for(self._chance.choice(floods.ALL), FLOOD_S * self._chance.random())

    async def _flood_for(self, kind: str, seconds: float) -> None:
        async with self._connection() as rude:
            await rude.opened(self._target)
            rude.writer.write(floods.ARP_REPLY)
            await rude.sending(_CHUNKS[kind], seconds)

    async def flood_on(self, kind: str) -> None:
        """One tunnel and one flood until the end, of which the server loses what is too much."""
        self._result.did[f"flood: {kind}"] += 1
        async with self._connection() as rude:
            await rude.opened(self._target)
            rude.writer.write(floods.ARP_REPLY)
            left_s = self._end - time.monotonic()
            await rude.sending(_CHUNKS[kind], left_s)
            if self._end - time.monotonic() > 0.1:
                self._result.fault(
                    f"the flood {kind!r} was closed {self._end - time.monotonic():.1f} s early"
                )

    async def malformed(self) -> None:
        """What ends a tunnel, each with its own close code."""
        wrong = {
            floods.websocket(0x2, b"\xa2"): 1008,
            floods.websocket(0x2, b"\xff\x03\x00\x00"): 1008,
            floods.websocket(0x2, b"\xa2\x04\x00\x00"): 1008,
            floods.websocket(0x2, b"\xa2\x03\x01\x00" + bytes(300)): 1008,
            floods.websocket(0x2, b"\xa2\x03\x00\x00" + bytes(5000)): 1009,
            floods.websocket(0x3, b"of no kind"): 1002,
            b"\x82\x04\xa2\x03\x00\x00": 1002,
        }
        message, code = self._chance.choice([*wrong.items()])
        async with self._connection() as rude:
            await rude.opened(self._target)
            rude.writer.write(message)
            try:
                seen = await rude.close_code()
            except TimeoutError:
                seen = 0
            if seen != code:
                raise Answered(f"{message[:12].hex()} is closed with {seen} instead of {code}")

    async def deaf(self) -> None:
        """Have somebody flood it, and read nothing; some stay until the server has had enough."""
        await self._deaf_for(14.0 if self._chance.random() < 0.2 else 3.0)

    async def _deaf_for(self, seconds: float) -> None:
        async with self._connection() as rude:
            await rude.opened(self._target)
            rude.writer.transport.pause_reading()  # type: ignore[attr-defined]
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                rude.writer.write(floods.ARP_REPLY + _CHUNKS["UDP from the internet, large"])
                await asyncio.sleep(floods.KEPT_UP_S)

    async def slow_reader(self) -> None:
        """A byte at a time of what comes."""
        async with self._connection() as rude:
            await rude.opened(self._target)
            for _ in range(30):
                rude.writer.write(_CHUNKS["UDP from the internet, large"])
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        if await rude.reader.read(1) == floods.ARP_QUESTION[:1]:
                            rude.writer.write(floods.ARP_REPLY)

    async def slow_sender(self) -> None:
        """A byte at a time, before the upgrade and behind it."""
        async with self._connection() as rude:
            data = wire.request(self._target)
            for at in range(20):
                rude.writer.write(data[at : at + 1])
                await asyncio.sleep(0.05)
            rude.writer.write(data[20:])
            async with asyncio.timeout(2 * ANSWER_S):
                wire.check_answer(self._target, await rude.reader.readuntil(b"\r\n\r\n"))
            for byte in floods.ARP_REPLY[:30]:
                rude.writer.write(bytes([byte]))
                await asyncio.sleep(0.05)

    async def half_a_request(self) -> None:
        """And nothing more for a while."""
        async with self._connection() as rude:
            rude.writer.write(wire.request(self._target)[: self._chance.randrange(1, 100)])
            await asyncio.sleep(_HELD_S * self._chance.random())

    async def early_leaver(self) -> None:
        """Gone before there is an answer."""
        async with self._connection() as rude:
            rude.writer.write(wire.request(self._target))
            await asyncio.sleep(0.05 * self._chance.random())

    async def garbage(self) -> None:
        """No request at all, or a costly one."""
        async with self._connection() as rude:
            rude.writer.write(self._chance.choice(storm.GARBAGE)())
            async with asyncio.timeout(ANSWER_S):
                await rude.reader.readline()

    async def hoard(self) -> None:
        """As many tunnels as there are, for a while."""
        async with contextlib.AsyncExitStack() as stack:
            with contextlib.suppress(wire.TunnelRefused):
                for _ in range(16):
                    await (await stack.enter_async_context(self._connection())).opened(self._target)
            await asyncio.sleep(_HELD_S * self._chance.random())

    async def byes(self) -> None:
        """A close frame in the middle of a flood, and more behind it."""
        async with self._connection() as rude:
            await rude.opened(self._target)
            data = _CHUNKS[self._chance.choice([*floods.KINDS])]
            rude.writer.write(data + floods.websocket(0x8, b"\x03\xe8bye") + data)
            await rude.close_code()


async def work(order: Assignment) -> Result:
    """All of them at once."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it warns of writes after the server's close
    result = Result()
    async with asyncio.TaskGroup() as group:
        for number in range(order.kinds["abusive"]):
            group.create_task(Abuser(order, number, result).run())
        for number in range(order.kinds["in step"]):
            group.create_task(Abuser(order, number, result).run_in_step())
        for number in range(order.kinds["flooding"]):
            group.create_task(Abuser(order, number, result).flood_on(floods.ALL[number % len(floods.ALL)]))
    return result


if __name__ == "__main__":
    serve(work)
