"""The other side of the admin socket: asks and waits, for programs that have nothing else to do meanwhile."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import Any, Final

MAX_ANSWER: Final = 64 * 1024 * 1024
_READ: Final = 256 * 1024
_WHY: Final[dict[type[OSError], str]] = {
    FileNotFoundError: "there is no such socket: is the server running, with this AERO_L2_ADMIN_SOCKET?",
    ConnectionRefusedError: "nobody answers: the server has ended",
    PermissionError: "permission denied: be the user that the server runs as, or root",
    TimeoutError: "no answer in time",
}


class NoAnswer(Exception):
    """The server cannot be asked; the text, for people, begins with the socket's path."""


class AdminClient:
    """One connection, opened when it is first needed and again after it was lost.

    path: of the socket. timeout_s: for each answer.
    """

    def __init__(self, path: str, timeout_s: float) -> None:
        self.path = path
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None

    def ask(self, request: str) -> dict[str, Any]:
        """The answer to a request (`aero_l2.admin.protocol`), as it came. Raises NoAnswer."""
        try:
            return self._ask(request.encode("ascii", "replace") + b"\n")
        except OSError as error:
            self.close()
            why = next((text for kind, text in _WHY.items() if isinstance(error, kind)), error.strerror)
            raise NoAnswer(f"{self.path}: {why or error}") from error
        except ValueError as error:
            self.close()
            raise NoAnswer(f"{self.path}: what answers there is no admin socket of this program") from error

    def close(self) -> None:
        """Let go of the connection; idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, line: bytes) -> dict[str, Any]:
        until = time.monotonic() + self._timeout_s
        fresh = self._socket is None
        try:
            text = self._exchange(line, until)
        except ConnectionError:
            if fresh:
                raise
            self.close()  # it was idle for long, or the server has been started anew
            text = self._exchange(line, until)
        answer = json.loads(text)
        if not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
            raise ValueError("no answer")
        return answer

    def _exchange(self, line: bytes, until: float) -> bytes:
        connection = self._connected()
        with contextlib.suppress(BrokenPipeError):  # it was told why, and not asked
            connection.sendall(line)
        return self._line(until)

    def _connected(self) -> socket.socket:
        if self._socket is None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(self._timeout_s)
            try:
                sock.connect(self.path)
            except OSError:
                sock.close()
                raise
            self._socket = sock
        return self._socket

    def _line(self, until: float) -> bytes:
        sock = self._connected()
        pieces: list[bytes] = []
        size = 0
        while not (pieces and pieces[-1].endswith(b"\n")):
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            sock.settimeout(left)
            piece = sock.recv(_READ)
            if not piece:
                raise ConnectionResetError(0, "the connection was closed without an answer")
            pieces.append(piece)
            size += len(piece)
            if size > MAX_ANSWER:
                raise ValueError("too long")
        return b"".join(pieces)
