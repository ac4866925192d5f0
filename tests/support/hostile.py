"""Servers on 127.0.0.1 that are no tunnel's: what each does with a connection is a function."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Protocol: aero-l2-tunnel-v1\r\n\r\n"
)
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3


class Served:
    """One connection, and the end of the test."""

    def __init__(self, connection: socket.socket, over: threading.Event) -> None:
        self.connection = connection
        self._over = over

    def head(self) -> bytes:
        """The request."""
        head = b""
        while b"\r\n\r\n" not in head:
            if not (more := self.connection.recv(65536)):
                raise ConnectionError
            head += more
        return head

    def upgrade(self) -> None:
        """Accept the WebSocket (RFC 6455 §4.2.2)."""
        key = re.search(rb"(?i)\r\nsec-websocket-key: *(\S+)", self.head())
        if key is None:
            raise ConnectionError
        accept = base64.b64encode(hashlib.sha1(key[1] + _GUID).digest())
        self.send(SWITCHING.removesuffix(b"\r\n") + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")

    def send(self, data: bytes) -> None:
        """At once."""
        self.connection.sendall(data)

    def forever(self, data: bytes, pause_s: float = 0) -> None:
        """The same again and again, until the client or the test goes."""
        while not self._over.wait(pause_s):
            self.connection.sendall(data)

    def slowly(self, data: bytes, pause_s: float) -> None:
        """A byte at a time."""
        for byte in data:
            self.connection.sendall(bytes([byte]))
            self._over.wait(pause_s)

    def silence(self) -> None:
        """Nothing more, but what comes is read, until the client or the test goes."""
        self.connection.settimeout(0.1)
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                if not self.connection.recv(65536):
                    return

    def last(self, data: bytes) -> None:
        """At once, and then nothing more."""
        self.send(data)
        self.silence()


Behaviour = Callable[[Served], None]


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[int]:
    """The port of a server that treats every connection so."""
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            behaviour(Served(connection, over))

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        acceptor = threading.Thread(target=accept, args=(listener,), daemon=True)
        acceptor.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join(10)
