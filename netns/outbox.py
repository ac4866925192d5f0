"""What must reach the other end of a socket, in order, as soon as there is room. asyncio."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable

Send = Callable[[socket.socket], None]
"""Sends one message; BlockingIOError: there is no room now."""


class Outbox:
    """Messages to one peer at a time; what waits is dropped when that goes. ``log`` hears of what is lost."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._socket: socket.socket | None = None
        self._unsent: deque[Send] = deque()

    def open(self, connection: socket.socket) -> None:
        """Send to this one, which stays the caller's, from now on."""
        self._socket = connection

    def close(self) -> None:
        """Send no more; idempotent. Must come before the socket is closed."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_writer(self._socket.fileno())
            self._unsent.clear()
            self._socket = None

    def post(self, send: Send) -> bool:
        """Send this behind what waits; False where there is nobody to send to."""
        if self._socket is None:
            return False
        self._unsent.append(send)
        if len(self._unsent) == 1 and not self._send_waiting():
            asyncio.get_running_loop().add_writer(self._socket.fileno(), self._writable)
        return True

    def _writable(self) -> None:
        if self._send_waiting() and self._socket is not None:
            asyncio.get_running_loop().remove_writer(self._socket.fileno())

    def _send_waiting(self) -> bool:
        """Whether everything that waited is sent now."""
        while self._unsent and self._socket is not None:
            try:
                self._unsent[0](self._socket)
            except BlockingIOError:
                return False
            except ConnectionError:
                pass  # the peer ended, and whoever reads hears of it
            except OSError as error:
                self._log(f"a message to the network helper is lost: {error}")
            self._unsent.popleft()
        return True
