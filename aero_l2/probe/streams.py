"""TCP connections of the guest as streams, and what is wrong with them in words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from typing import Final

from aero_l2.probe.guest import Guest
from aero_l2.probe.outcome import Kind, StepFailed
from aero_l2.probe.tcp import Connection, Fault

_LATE_S: Final = 2.0
"""A reset that takes longer is not one of a closed port or of the policy, which come at once."""


class Stream:
    """An open connection; where: the target, for failures."""

    def __init__(self, guest: Guest, connection: Connection, where: str) -> None:
        self._guest = guest
        self.connection = connection
        self._where = where
        self._unread = b""

    async def write(self, data: bytes) -> None:
        """Send all of it, waiting for room. Raises StepFailed."""
        while data:
            data = data[self._guest.write(self.connection, data) :]
            self._check()
            if data:
                before = self.connection.bytes_acknowledged
                await self._guest.until(
                    lambda: True if self._moved(before) else None  # noqa: B023 (it is awaited right here)
                )

    def _moved(self, before: int) -> bool:
        return self.connection.is_over or self.connection.bytes_acknowledged != before

    async def taken(self, size: int) -> None:
        """Wait until the other side has taken so many bytes. Raises StepFailed."""
        await self._guest.until(
            lambda: True if self.connection.is_over or self.connection.bytes_acknowledged >= size else None
        )
        self._check()

    async def read(self) -> bytes:
        """What has come, at least one byte; empty: the other side has sent all. Raises StepFailed."""
        if self._unread:
            data, self._unread = self._unread, b""
            return data
        data = await self._guest.until(self._take)
        if not data:
            self._check()
        self._guest.settle()  # the window may have opened
        return data

    def _take(self) -> bytes | None:
        data = self.connection.read()
        return data if data or self.connection.has_ended or self.connection.is_over else None

    async def read_exactly(self, size: int) -> bytes:
        """So many bytes. Raises StepFailed if the other side ends before."""
        data = bytearray()
        while len(data) < size:
            more = await self.read()
            if not more:
                raise self.broken(f"after {len(data)} of {size} bytes")
            data += more
        self.unread(bytes(data[size:]))
        return bytes(data[:size])

    def unread(self, data: bytes) -> None:
        """Give back what was read too much."""
        self._unread = data + self._unread

    def broken(self, when: str) -> StepFailed:
        """The failure that an early end is."""
        return StepFailed(Kind.BROKEN, f"{self._where}: the target ended the connection {when}")

    def _check(self) -> None:
        fault = self.connection.fault
        if fault is Fault.TIMED_OUT:
            raise StepFailed(Kind.TIMEOUT, f"{self._where}: nothing is acknowledged any more")
        if fault is not None:
            raise self.broken("by a reset in the middle")


@asynccontextmanager
async def connected(guest: Guest, address: IPv4Address, port: int, where: str) -> AsyncIterator[Stream]:
    """A connection for a while; ended by FIN, by RST where something goes wrong. Raises StepFailed."""
    began = guest.now
    connection = await guest.connect(address, port)
    if connection.fault is not None:
        raise _refused(connection.fault, where, guest.now - began)
    try:
        yield Stream(guest, connection, where)
    except BaseException:
        guest.abort(connection)
        raise
    guest.close(connection)


def _refused(fault: Fault, where: str, took_s: float) -> StepFailed:
    if fault is Fault.RESET and took_s >= _LATE_S:
        return StepFailed(
            Kind.TIMEOUT,
            f"{where}: reset after {took_s:.1f} s: nobody answers there, and the server gave up "
            "(AERO_L2_TCP_CONNECT_TIMEOUT_MS)",
        )
    if fault is Fault.RESET:
        return StepFailed(
            Kind.REFUSED,
            f"{where}: connection refused (RST): nobody listens there, or the server's policy denies it "
            "(aero-l2 policy explain, on the server, tells)",
        )
    if fault is Fault.PROHIBITED:
        return StepFailed(Kind.PROHIBITED, f"{where}: the server's policy prohibits it (ICMP)")
    if fault is Fault.UNREACHABLE:
        return StepFailed(Kind.NO_ROUTE, f"{where}: host or network unreachable (ICMP)")
    return StepFailed(Kind.TIMEOUT, f"{where}: no answer to the connect")
