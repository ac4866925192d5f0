"""A tunnel's beginning, by hand on a socket: connect, handshake, lease. The card gets what stands."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from aero_l2.client.address import Target
from aero_l2.probe import dhcp
from aero_l2.services.dhcp import codec
from bench import wire

LIMIT_S = 30
_HEAD_ENDS = b"\r\n\r\n"
_CLOSE = 0x88


class Beginning:
    """All of it is there by one deadline, whatever the server sends and however slowly.

    Its methods raise TunnelRefused.
    """

    def __init__(self, target: Target, limit_s: float = LIMIT_S) -> None:
        self._target = target
        self._limit_s = limit_s
        self._end = time.monotonic() + limit_s

    def connect(self) -> socket.socket:
        """A connection, to the first address that takes one."""
        with self._faults("connection"):
            last: OSError = OSError("the name has no address")
            for family, kind, protocol, _, address in socket.getaddrinfo(
                *wire.endpoint(self._target), type=socket.SOCK_STREAM
            ):
                connection = socket.socket(family, kind, protocol)
                try:
                    connection.settimeout(self._left())
                    connection.connect(address)
                    return connection
                except OSError as error:
                    connection.close()
                    last = error
            raise last

    def shake_hands(self, connection: socket.socket) -> None:
        """Become a WebSocket; what comes behind the 101 is left unread."""
        with self._faults("answer"):
            self._send(connection, wire.request(self._target))
            wire.check_answer(self._target, self._head(connection))

    def lease(self, connection: socket.socket, number: int = 0) -> dhcp.Lease:
        """DISCOVER to ACK; reads whole messages and no byte more."""
        with self._faults("lease"):
            self._send(connection, wire.discover(number))
            while True:
                answer = self._dhcp(connection, number)
                if answer is None:
                    continue
                if answer.kind == codec.NAK:
                    raise wire.refused(self._target, dhcp.why_refused(answer))
                if answer.kind == codec.ACK:
                    return dhcp.lease_of(answer)
                self._send(connection, wire.accept(number, answer))

    def _dhcp(self, connection: socket.socket, number: int) -> codec.DhcpMessage | None:
        message = self._message(connection)
        is_frame = message.startswith(wire.HEADER)
        return wire.dhcp_in(message[len(wire.HEADER) :], number) if is_frame else None

    def _head(self, connection: socket.socket) -> bytes:
        """The HTTP answer up to its empty line, or to the end of the connection. Looks before it takes, since
        what comes behind is the card's."""
        head = bytearray()
        while len(head) < wire.HEAD_MAX:
            connection.settimeout(self._left())
            seen = connection.recv(wire.HEAD_MAX - len(head), socket.MSG_PEEK)
            known = len(head)
            head += seen
            end = head.find(_HEAD_ENDS, max(0, known - len(_HEAD_ENDS) + 1))
            if end >= 0:
                del head[end + len(_HEAD_ENDS) :]
            self._exactly(connection, len(head) - known)
            if end >= 0 or not seen:
                return bytes(head)
        raise wire.refused(self._target, wire.LONG_HEAD)

    def _message(self, connection: socket.socket) -> bytes:
        """The payload of the next WebSocket frame."""
        kind, size = self._exactly(connection, 2)
        if size > wire.WIDE:
            raise wire.refused(self._target, wire.NO_TUNNEL)
        if size == wire.WIDE:
            size = int.from_bytes(self._exactly(connection, 2))
        payload = self._exactly(connection, size)
        if kind == _CLOSE:
            said = payload[2:].decode("utf-8", "replace")
            raise wire.refused(self._target, f"the server closed the tunnel before there was a lease: {said}")
        return payload

    def _exactly(self, connection: socket.socket, size: int) -> bytes:
        """So many bytes; one recv may bring fewer where the socket has a time-out, MSG_WAITALL or not."""
        data = bytearray()
        while len(data) < size:
            connection.settimeout(self._left())
            more = connection.recv(size - len(data))
            if not more:
                raise wire.refused(self._target, "the connection ended before there was a lease")
            data += more
        return bytes(data)

    def _send(self, connection: socket.socket, data: bytes) -> None:
        connection.settimeout(self._left())
        connection.sendall(data)

    def _left(self) -> float:
        """Seconds. Raises TimeoutError."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    @contextmanager
    def _faults(self, wanted: str) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise wire.refused(self._target, f"no {wanted} within {self._limit_s:g} s") from None
        except (OSError, UnicodeError, dhcp.BadLease) as error:
            raise wire.refused(self._target, f"no {wanted}: {error}") from None
