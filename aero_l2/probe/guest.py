"""A guest on a tunnel: the stack, with asyncio's clock, and coroutines that wait for what comes."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from typing import Final, TypeVar

from aero_l2.client import ClientError, Tunnel, TunnelClosed
from aero_l2.probe import packets
from aero_l2.probe.outcome import Facts, Kind, StepFailed, of_client_error
from aero_l2.probe.packets import Datagram
from aero_l2.probe.stack import PROHIBITED_CODES, Socket, Stack
from aero_l2.probe.tcp import Connection, Ports
from aero_l2.tasks import spawn

T = TypeVar("T")

AGAIN_S: Final = 1.0
"""After how long a question without an answer is asked again."""
_FIRST_PORT: Final = 49_152  # RFC 6335 §6
_PORTS: Final = 16_384


class Guest:
    """Made by `attach`."""

    def __init__(self, tunnel: Tunnel, mac: bytes) -> None:
        self.stack = Stack(mac)
        self._tunnel = tunnel
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._lost: StepFailed | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._next_port = secrets.randbelow(_PORTS)

    @property
    def now(self) -> float:
        """Seconds of the clock that all timers here go by."""
        return self._loop.time()

    async def read(self) -> None:
        """Take frames until the tunnel ends."""
        try:
            while True:
                for frame in await self._tunnel.receive_frames():
                    self.stack.receive(frame, self.now)
                self.stack.flush()
                self.settle()
        except ClientError as error:
            self._lost = of_client_error(error)
            self._changed.set()

    def settle(self) -> None:
        """Send what the stack wants to send, and look again when its next timer is due."""
        with contextlib.suppress(TunnelClosed):  # the reader says why
            for frame in self.stack.take_frames():
                self._tunnel.offer_frame(frame)  # what does not fit is lost, as on any LAN
        if self._timer is not None:
            self._timer.cancel()
        due = self.stack.deadline
        self._timer = None if due is None else self._loop.call_at(due, self._tick)
        self._changed.set()

    def _tick(self) -> None:
        self.stack.tick(self.now)
        self.settle()

    def stop(self) -> None:
        """No timer runs any more."""
        if self._timer is not None:
            self._timer.cancel()

    async def until(self, condition: Callable[[], T | None]) -> T:
        """Wait until ``condition`` gives something. Raises StepFailed once the tunnel is closed."""
        while (value := condition()) is None:
            if self._lost is not None:
                raise self._lost
            self._changed.clear()
            await self._changed.wait()
        return value

    async def asking(self, ask: Callable[[], object], condition: Callable[[], T | None]) -> T:
        """Ask, and again each second, until there is an answer; the caller limits the time."""
        while True:
            ask()
            self.settle()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S):
                    return await self.until(condition)

    def free_port(self) -> int:
        """A local port that was not used lately."""
        self._next_port = (self._next_port + 1) % _PORTS
        return _FIRST_PORT + self._next_port

    @contextlib.contextmanager
    def socket(self, port: int | None = None) -> Iterator[Socket]:
        """A UDP port for a while."""
        opened = self.stack.open_socket(self.free_port() if port is None else port)
        try:
            yield opened
        finally:
            self.stack.close_socket(opened)

    async def arp(self, target: IPv4Address) -> bytes:
        """The MAC address of a neighbour."""
        return await self.asking(lambda: self.stack.ask_arp(target), lambda: self.stack.neighbour(target))

    async def reach(self, target: IPv4Address) -> None:
        """Know the next hop for a target."""
        hop = self.stack.next_hop(target)
        if self.stack.neighbour(hop) is None:
            await self.arp(hop)

    async def exchange(
        self, target: IPv4Address, port: int, data: bytes, wanted: Callable[[Datagram], T | None]
    ) -> T | packets.Unreachable:
        """Send a datagram until what comes back from there is ``wanted``, or ICMP refuses it."""
        await self.reach(target)
        with self.socket() as socket:

            def look() -> T | packets.Unreachable | None:
                while socket.received:
                    came = socket.received.popleft()
                    from_there = (came.source, came.source_port) == (target, port)
                    if from_there and (found := wanted(came)) is not None:
                        return found
                error = socket.error
                is_about = error is not None and (error.destination, error.remote) == (target, port)
                return error if is_about else None

            return await self.asking(lambda: self.stack.send_datagram(socket, target, port, data), look)

    async def connect(self, target: IPv4Address, port: int) -> Connection:
        """A TCP connection; the caller looks at its fault."""
        await self.reach(target)
        ports = Ports(self.free_port(), port)
        connection = self.stack.connect(target, ports, secrets.randbits(32), self.now)
        self.settle()
        await self.until(lambda: connection.is_established or connection.fault)
        return connection

    def write(self, connection: Connection, data: bytes) -> int:
        """Send as much as there is room for; returns how many bytes."""
        taken = connection.write(data, self.now)
        self.settle()
        return taken

    def close(self, connection: Connection) -> None:
        """Nothing more is sent."""
        connection.close(self.now)
        self.settle()

    def abort(self, connection: Connection) -> None:
        """Nothing more is wanted."""
        connection.abort()
        self.settle()


@asynccontextmanager
async def attach(tunnel: Tunnel) -> AsyncIterator[Guest]:
    """A guest without an address, with a MAC address of its own (locally administered)."""
    guest = Guest(tunnel, b"\x02" + secrets.token_bytes(5))
    reader = spawn(guest.read(), name="probe reader")
    try:
        yield guest
    finally:
        guest.stop()
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


def refused_by(error: packets.Unreachable, where: str) -> StepFailed:
    """The failure that an ICMP error is."""
    facts: Facts = {"icmp_code": error.code, "by": str(error.by)}
    if error.code in PROHIBITED_CODES:
        return StepFailed(Kind.PROHIBITED, f"{where}: {error.by} says that its policy prohibits it", facts)
    return StepFailed(Kind.NO_ROUTE, f"{where}: {error.by} says that it is {_why(error.code)}", facts)


def _why(code: int) -> str:
    known = {0: "a network", 1: "a host", 2: "a protocol", 3: "a port"}
    return f"{known[code]} that cannot be reached" if code in known else f"unreachable (ICMP 3/{code})"
