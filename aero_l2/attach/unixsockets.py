"""Unix sockets of emulators: listening on a path, safely replaced and removed, or connecting. asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from aero_l2.attach.errors import GarbledStream, SocketUnusable
from aero_l2.attach.show import Display
from aero_l2.attach.wires import MessageWire, StreamWire, Wire
from aero_l2.tasks import spawn

MAX_PATH_BYTES: Final = 107
"""sockaddr_un, unix(7)."""
RETRY_S: Final = 0.5
_HANDOVER_S: Final = 2 * RETRY_S
_PRIVATE: Final = 0o177
_UCRED: Final = struct.Struct("iII")
"""pid, uid, gid; unix(7)."""
_NOBODY: Final = 0xFFFF_FFFF

Serve = Callable[[Wire], Awaitable[None]]


class Listening:
    """A socket (see `listener`) that machines connect to, one at a time.

    SOCK_STREAM is for frames behind their lengths, SOCK_SEQPACKET for one frame a message.
    """

    def __init__(self, waiting: socket.socket, display: Display) -> None:
        self._waiting = waiting
        self._display = display

    async def run(self, serve: Serve) -> None:
        """Serve each machine in turn, for ever."""
        loop = asyncio.get_running_loop()
        attached: asyncio.Task[None] | None = None
        try:
            while True:
                connection, _ = await loop.sock_accept(self._waiting)
                if attached is not None:  # the one before may be gone without being noticed yet
                    await asyncio.wait((attached,), timeout=_HANDOVER_S)
                if attached is not None and not attached.done():
                    connection.close()
                    self._display.change("another machine is turned away", why="one is attached already")
                    continue
                is_stream = self._waiting.type == socket.SOCK_STREAM
                wire = StreamWire(connection) if is_stream else MessageWire(connection)
                attached = spawn(_attend(wire, serve, self._display), name="machine")
        finally:
            if attached is not None:
                attached.cancel()
                await asyncio.gather(attached, return_exceptions=True)


class Connecting:
    """A QEMU that listens (``server=on``): connected to as soon as it is there, again when it comes back."""

    def __init__(self, path: Path, display: Display) -> None:
        self.path = path
        self._display = display

    async def run(self, serve: Serve) -> None:
        """Serve it as often as it comes, for ever. Raises SocketUnusable."""
        _check_length(self.path)
        loop = asyncio.get_running_loop()
        while True:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.setblocking(False)
            try:
                await loop.sock_connect(connection, str(self.path))
                _check_owner(connection, self.path)
            except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
                connection.close()
            except SocketUnusable:
                connection.close()
                raise
            except OSError as error:
                connection.close()
                raise SocketUnusable(f"cannot connect to {self.path}: {error.strerror}") from None
            else:
                await _attend(StreamWire(connection), serve, self._display)
            await asyncio.sleep(RETRY_S)


def _check_owner(connection: socket.socket, path: Path) -> None:
    """Whoever listens is us or root, and nobody who took the path before.

    Raises:
        SocketUnusable: it is somebody else.
        BlockingIOError: it is not connected, for too many wait there.
    """
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, _ = _UCRED.unpack(peer)
    if uid == _NOBODY:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    if uid not in (os.geteuid(), 0):
        raise SocketUnusable(
            f"user {uid} listens on {path}, not you: take a path in a directory that only you can write to"
        )


async def _attend(wire: Wire, serve: Serve, display: Display) -> None:
    display.change("machine attached")
    try:
        await serve(wire)
    except GarbledStream as fault:
        display.change("machine dismissed", why=str(fault))
        await asyncio.sleep(RETRY_S)  # so much time at least between two such lines
    else:
        display.change("machine gone")


@contextmanager
def listener(path: Path, kind: socket.SocketKind) -> Iterator[socket.socket]:
    """Listen on ``path``, for our user only; the file is gone afterwards.

    A socket that nobody listens on any more is replaced.

    Raises:
        SocketUnusable
    """
    _check_length(path)
    with contextlib.closing(socket.socket(socket.AF_UNIX, kind)) as waiting:
        _remove_stale(path)
        mask = os.umask(_PRIVATE)
        try:
            waiting.bind(str(path))
        except OSError as error:
            raise SocketUnusable(f"cannot listen on {path}: {error.strerror}") from None
        finally:
            os.umask(mask)
        ours = _identity(path)
        try:
            waiting.listen(8)
            waiting.setblocking(False)
            yield waiting
        finally:
            if _identity(path) == ours:
                path.unlink()


def _check_length(path: Path) -> None:
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise SocketUnusable(f"{path} is too long for a socket ({MAX_PATH_BYTES} bytes): take a shorter path")


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketUnusable(f"cannot listen on {path}: {error.strerror}") from None
    if not stat.S_ISSOCK(mode):
        raise SocketUnusable(f"{path} exists and is no socket: take another path, or remove it")
    if _is_in_use(path):
        raise SocketUnusable(f"{path} is in use by another program: end it, or take another path")
    try:
        path.unlink()
    except OSError as error:
        raise SocketUnusable(f"cannot replace {path}, which nobody listens on: {error.strerror}") from None


def _is_in_use(path: Path) -> bool:
    """Whether a socket belongs to the path. Its owner does not notice: a datagram socket is of the wrong type
    for it (EPROTOTYPE), and no connection. Raises SocketUnusable."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as knocking:
        try:
            knocking.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError as error:
            if error.errno != errno.EPROTOTYPE:
                raise SocketUnusable(f"{path} is in use ({error.strerror}): take another path") from None
        return True


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
