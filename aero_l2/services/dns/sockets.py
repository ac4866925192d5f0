"""The sockets dnspython asks upstreams through: UDP connected, UDP and TCP bounded.

dnspython's own UDP socket for asyncio takes datagrams from anyone into a queue without end and learns of a
dead server only by timeout. A connected one leaves other senders to the kernel, queues in the kernel's
buffer, and turns "port unreachable" into ConnectionRefusedError at once.
"""

import asyncio
import socket
from typing import Any, Final

import dns.asyncbackend
import dns.exception
import dns.inet

from aero_l2.services.dns.cost import MAX_ANSWER_BYTES, MAX_COST, of_answer
from aero_l2.services.dns.pace import Pace
from aero_l2.services.dns.sourceports import SourcePorts

# Wrong answers to one question (RFC 5452): this many, and the question is asked over TCP instead.
MAX_ANSWERS: Final = 32
# Over what we ask for (1232), for servers that know no bounds.
MAX_DATAGRAM_BYTES: Final = 4096

_PREFIX_BYTES: Final = 2


class AnswerFlood(dns.exception.DNSException):
    """More wrong answers to one question than an honest path produces."""


class TooCostly(dns.exception.DNSException):
    """An answer that would hold up every tunnel while it is read."""


class ConnectedDatagram(dns.asyncbackend.DatagramSocket):  # type: ignore[name-defined,misc]
    """One question's UDP socket, on a random port of its own (RFC 5452 section 9.2)."""

    def __init__(self, family: int, sock: socket.socket, destination: Any, pace: Pace) -> None:
        """Own `sock`, connected to `destination` and non-blocking."""
        super().__init__(family, socket.SOCK_DGRAM)
        self._sock = sock
        self._destination = destination
        self._pace = pace
        self._received = 0

    async def sendto(self, what: bytes, destination: Any, timeout: float | None) -> int:
        """Send to the connected server. OSError if the kernel refuses."""
        return self._sock.send(what)

    async def recvfrom(self, size: int, timeout: float | None) -> tuple[bytes, Any]:
        """Receive one datagram.

        Raises dns.exception.Timeout, AnswerFlood, TooCostly, or OSError (server not reachable).
        """
        self._received += 1
        if self._received > MAX_ANSWERS:
            raise AnswerFlood
        try:
            async with asyncio.timeout(timeout):
                data = await asyncio.get_running_loop().sock_recv(self._sock, min(size, MAX_DATAGRAM_BYTES))
        except TimeoutError:
            raise dns.exception.Timeout from None
        cost = of_answer(data)
        if cost > MAX_COST:
            raise TooCostly
        await self._pace.take(cost)
        return data, self._destination

    async def close(self) -> None:
        """Close the socket."""
        self._sock.close()


class BoundedStream(dns.asyncbackend.StreamSocket):  # type: ignore[name-defined,misc]
    """dnspython's own stream, given up when the answer turns out too long or too costly to read."""

    def __init__(self, family: int, stream: Any, pace: Pace) -> None:
        """Own `stream`, a StreamSocket of dnspython."""
        super().__init__(family, socket.SOCK_STREAM)
        self._stream = stream
        self._pace = pace
        self._answer = bytearray()

    async def sendall(self, what: bytes, timeout: float | None) -> None:
        """Send all. dns.exception.Timeout or OSError."""
        await self._stream.sendall(what, timeout)

    async def recv(self, size: int, timeout: float | None) -> bytes:
        """Receive up to `size` bytes, b"" at the end. dns.exception.Timeout, TooCostly, or OSError."""
        data: bytes = await self._stream.recv(size, timeout)
        self._answer += data
        if len(self._answer) >= _PREFIX_BYTES:
            length = int.from_bytes(self._answer[:_PREFIX_BYTES], "big")
            whole = len(self._answer) >= _PREFIX_BYTES + length
            cost = of_answer(self._answer[_PREFIX_BYTES:]) if whole and length <= MAX_ANSWER_BYTES else 0
            if length > MAX_ANSWER_BYTES or cost > MAX_COST:
                raise TooCostly
            await self._pace.take(cost)
        return data

    async def close(self) -> None:
        """Close the stream."""
        await self._stream.close()


class UpstreamBackend(dns.asyncbackend.Backend):  # type: ignore[name-defined,misc]
    """A dnspython backend (its documented extension point) with our UDP sockets."""

    def __init__(self, pace: Pace, ports: SourcePorts) -> None:
        """Borrow TCP from dnspython's asyncio backend. `pace`: when an answer may be read."""
        self._pace = pace
        self._ports = ports
        self._streams: Any = dns.asyncbackend.get_backend("asyncio")

    def name(self) -> str:
        """Name of the backend, as dnspython wants it."""
        return "asyncio"

    def datagram_connection_required(self) -> bool:
        """Ask dnspython to pass the destination when it makes a UDP socket."""
        return True

    async def make_socket(
        self,
        af: int,
        socktype: int,
        proto: int = 0,
        source: Any = None,
        destination: Any = None,
        timeout: float | None = None,
        ssl_context: Any = None,
        server_hostname: str | None = None,
    ) -> Any:
        """Make a socket connected to `destination` (host, port). OSError without a way or a descriptor."""
        if socktype != socket.SOCK_DGRAM:
            stream = await self._streams.make_socket(
                af, socktype, proto, source, destination, timeout, ssl_context, server_hostname
            )
            return BoundedStream(af, stream, self._pace)
        address = dns.inet.low_level_address_tuple(destination, af)
        sock = socket.socket(af, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._ports.connect(sock, address)
        except OSError:
            sock.close()
            raise
        return ConnectedDatagram(af, sock, address, self._pace)
