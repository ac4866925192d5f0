"""A TCP relay in front of the proxy, whose connections a test breaks as networks do: at once, or unseen."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from support import addresses as at
from support.ns import Namespace

_CHUNK = 65536
_RESET = struct.pack("ii", 1, 0)


class Relay:
    """Listens on ``port`` of the loopback of ``where`` and passes everything on to another port there."""

    def __init__(self, where: Namespace, to_port: int) -> None:
        self._where = where
        self._to_port = to_port
        self._listener = where.call(lambda: socket.create_server((at.LOOPBACK, 0)))
        self.port = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._silent: set[socket.socket] = set()
        self.count = 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        """The tunnel's address by way of this."""
        return f"ws://{at.LOOPBACK}:{self.port}/l2"

    def cut(self) -> None:
        """Reset every connection, both ends."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    end.shutdown(socket.SHUT_RD)  # wakes whoever reads it, and says nothing to the far end
                end.close()

    def silence(self) -> None:
        """Lose everything that comes from now on over the connections there are; neither end is told."""
        self._silent.update(end for pair in self._pairs for end in pair)

    def close(self) -> None:
        """Stop."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = self._where.connect(at.LOOPBACK, self._to_port)
            except OSError:
                return
            far.setblocking(True)
            self.count += 1
            self._pairs.append((near, far))
            for source, target in ((near, far), (far, near)):
                thread = threading.Thread(target=self._pass_on, args=(source, target), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while chunk := source.recv(_CHUNK):
                if source not in self._silent:
                    target.sendall(chunk)
        except OSError:
            return
        if source not in self._silent:
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_WR)


@contextmanager
def relay(where: Namespace, to_port: int) -> Iterator[Relay]:
    """Run one, and stop it afterwards."""
    made = Relay(where, to_port)
    try:
        yield made
    finally:
        made.close()
