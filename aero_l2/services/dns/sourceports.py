"""The port that a question is asked from: random (RFC 5452 section 9.2), even while the kernel has none."""

import contextlib
import errno
import os
import random
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from aero_l2.quota.localports import other_port

PAUSE_S: Final = 1.0
"""The kernel looks through every port before it says that none is left: 4.5 ms of the loop for 28,232."""
_TRIES: Final = 16
_CHANCE: Final = random.SystemRandom()


class SourcePorts:
    """Connects the process's UDP sockets. Guests' datagrams take the ports that the kernel gives, and other
    programs do; names have to work nevertheless, so then we pick a port outside the kernel's range."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds that never go back."""
        self._clock = clock
        self._asks_again_at = clock()

    def connect(self, sock: socket.socket, address: Any) -> None:
        """Connect a non-blocking UDP socket that is not bound. OSError without a way or a port."""
        is_asked = self._clock() >= self._asks_again_at
        if is_asked:
            try:
                sock.connect(address)
                return
            except BlockingIOError:  # EAGAIN, ip(7)
                pass
        _bind_elsewhere(sock)
        if is_asked:
            self._asks_again_at = self._clock() + PAUSE_S
        sock.connect(address)
        with contextlib.suppress(BlockingIOError):
            while True:  # who was not asked may have sent to that port before the kernel refused it
                sock.recv(1)


def _bind_elsewhere(sock: socket.socket) -> None:
    """Bind to a random port that the kernel does not give by itself. OSError where several are taken."""
    for _ in range(_TRIES):
        port = other_port(_CHANCE)
        with contextlib.suppress(OSError):
            if port is not None:
                sock.bind(("", port))
                return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
