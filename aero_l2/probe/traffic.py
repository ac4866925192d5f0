"""Throughput through the tunnel, for a number of seconds."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable
from ipaddress import IPv4Address
from typing import Final, TypeVar

from aero_l2.probe import http
from aero_l2.probe.guest import Guest
from aero_l2.probe.outcome import Kind, StepFailed
from aero_l2.probe.report import Rate
from aero_l2.probe.streams import Stream, connected
from aero_l2.probe.targets import ProbeTarget, Scheme

T = TypeVar("T")

DIRECTIONS: Final = {Scheme.HTTP: "down", Scheme.TCP_DISCARD: "up", Scheme.TCP_ECHO: "both"}
_CHUNK: Final = 65_536
_AHEAD: Final = 131_072
"""Bytes that an echo may be behind what is sent."""


class _TimeIsUp(Exception):
    """What was measured, was measured for long enough."""


class _Meter:
    """Counts bytes until the time is up."""

    def __init__(self, guest: Guest, target: ProbeTarget, seconds: float, stall_s: float) -> None:
        self.guest = guest
        self.target = target
        self.bytes = 0
        self._began = guest.now
        self._end = guest.now + seconds
        self._stall_s = stall_s

    async def wait(self, work: Awaitable[T]) -> T:
        """Await what moves data. Raises _TimeIsUp, and StepFailed if nothing has moved for too long."""
        left_s = self._end - self.guest.now
        try:
            async with asyncio.timeout(max(min(left_s, self._stall_s), 0)):
                return await work
        except TimeoutError:
            if left_s <= self._stall_s:
                raise _TimeIsUp from None
        raise StepFailed(Kind.TIMEOUT, f"{self.target}: no data moved for {self._stall_s:g} s")

    def rate(self) -> Rate:
        """What it comes to."""
        direction = DIRECTIONS[self.target.scheme]
        return Rate(str(self.target), direction, self.guest.now - self._began, self.bytes)


async def measure(
    guest: Guest, target: ProbeTarget, address: IPv4Address, seconds: float, stall_s: float
) -> Rate:
    """Carry data to or from a target. Raises StepFailed, also if nothing moves for ``stall_s`` seconds.

    http: down, one GET after the other. tcp-discard: up, counted as it is acknowledged. tcp-echo: both ways
    at once, each byte compared.
    """
    meter = _Meter(guest, target, seconds, stall_s)
    carry = {Scheme.HTTP: _download, Scheme.TCP_DISCARD: _upload, Scheme.TCP_ECHO: _echo}[target.scheme]
    with contextlib.suppress(_TimeIsUp):
        while True:
            before = meter.bytes
            async with contextlib.AsyncExitStack() as stack:
                opening = stack.enter_async_context(connected(guest, address, target.port, str(target)))
                stream = await meter.wait(opening)
                await carry(meter, stream)
            if meter.bytes == before:
                raise StepFailed(Kind.WRONG_ANSWER, f"{target}: its answer is empty, nothing to measure with")
    return meter.rate()


async def _download(meter: _Meter, stream: Stream) -> None:
    status = await meter.wait(http.get(stream, meter.target))
    if status >= 400:
        raise StepFailed(Kind.WRONG_ANSWER, f"{meter.target}: HTTP status {status}")
    while data := await meter.wait(stream.read()):
        meter.bytes += len(data)


async def _upload(meter: _Meter, stream: Stream) -> None:
    chunk = secrets.token_bytes(_CHUNK)
    taken = 0
    while True:
        meter.guest.write(stream.connection, chunk)
        await meter.wait(stream.taken(taken + 1))
        meter.bytes += stream.connection.bytes_acknowledged - taken
        taken = stream.connection.bytes_acknowledged
        stream.connection.read()  # whatever it says


async def _echo(meter: _Meter, stream: Stream) -> None:
    pattern = secrets.token_bytes(_CHUNK) * 2
    sent = got = 0
    while True:
        if sent - got < _AHEAD:
            at = sent % _CHUNK
            sent += meter.guest.write(
                stream.connection, pattern[at : at + min(_CHUNK, _AHEAD - (sent - got))]
            )
        data = await meter.wait(stream.read())
        if not data:
            raise stream.broken("in the middle")
        if not _matches(pattern, got, data):
            raise StepFailed(Kind.WRONG_ANSWER, f"{meter.target}: what comes back differs from what was sent")
        got += len(data)
        meter.bytes += len(data)


def _matches(pattern: bytes, at: int, data: bytes) -> bool:
    """Whether data is the endless pattern from ``at`` on."""
    half = len(pattern) // 2
    return all(
        data[start : start + half] == pattern[(at + start) % half :][: len(data[start : start + half])]
        for start in range(0, len(data), half)
    )
