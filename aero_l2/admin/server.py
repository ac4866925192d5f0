"""The admin socket's connections: read lines, send answers, within bounds (docs/admin.md)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Final

import structlog

from aero_l2.admin.commands import Commands, refusal
from aero_l2.admin.peer import Peer, Stranger, peer_of
from aero_l2.admin.protocol import MAX_LINE, BadRequest, parse
from aero_l2.observe.limit import LimitedLog
from aero_l2.tasks import spawn

MAX_CONNECTIONS: Final = 16
IDLE_S: Final = 60.0
"""Until a connection that asks nothing is closed."""
WRITE_S: Final = 10.0
"""Until one that does not read its answer is."""
_ACCEPTS_PER_TURN: Final = 16
_RETRY_S: Final = 1.0


class AdminServer:
    """Serves between `start` and `close`.

    Of more than `MAX_CONNECTIONS` the one goes that has asked nothing for longest: so nobody who connects,
    however often, keeps the next one out.

    Args:
        listener: listens already; owned from now on.
        file: the descriptor of its file, see `aero_l2.admin.peer`.
    """

    def __init__(self, listener: socket.socket, file: int, commands: Commands) -> None:
        self._listener = listener
        self._file = file
        self._commands = commands
        self._loop = asyncio.get_running_loop()
        self._log = LimitedLog(structlog.get_logger(component="admin"))
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._idle: dict[asyncio.Task[None], None] = {}
        self._watching: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Accept connections."""
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener.fileno(), self._accept)
        self._watching = spawn(self._commands.watch(), name="admin rates")

    async def close(self) -> None:
        """Accept nobody any more, and close all; idempotent."""
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
        if self._retry is not None:
            self._retry.cancel()
        tasks = [*self._tasks, *([self._watching] if self._watching is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._log.close()

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError:  # no descriptor is left, say
                self._loop.remove_reader(self._listener.fileno())
                self._retry = self._loop.call_later(_RETRY_S, self.resume)
                return
            connection.setblocking(False)
            self._take(connection)

    def resume(self) -> None:
        """Accept again."""
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _take(self, connection: socket.socket) -> None:
        if len(self._tasks) >= MAX_CONNECTIONS:
            longest = next(iter(self._idle), None)
            if longest is None:
                with contextlib.suppress(OSError):
                    connection.send(refusal("too many requests at once: try again"))
                connection.close()
                return
            del self._idle[longest]
            del self._tasks[longest]
            longest.cancel()
        task = spawn(self._converse(connection), name="admin connection")
        self._tasks[task] = self._idle[task] = None
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        self._idle.pop(task, None)

    async def _converse(self, connection: socket.socket) -> None:
        try:
            peer: Peer | Stranger = peer_of(connection, self._file)
        except Stranger as stranger:
            peer = stranger
            self._log.write("warning", "admin refused", str(stranger), kind=str(stranger))
        except OSError:
            connection.close()
            return
        try:
            reader, writer = await asyncio.open_unix_connection(sock=connection, limit=MAX_LINE)
        except BaseException:
            connection.close()
            raise
        try:
            with contextlib.suppress(OSError, TimeoutError):
                if isinstance(peer, Stranger):
                    async with asyncio.timeout(IDLE_S):
                        await reader.read(MAX_LINE)  # else it would fail to ask, and not see why
                    await _send(writer, refusal(str(peer)))
                else:
                    await self._serve(peer, reader, writer)
                writer.close()
                async with asyncio.timeout(WRITE_S):
                    await writer.wait_closed()
        finally:
            writer.transport.abort()

    async def _serve(self, peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests, one after the other. Raises OSError, TimeoutError when the peer is lost."""
        while True:
            try:
                line = await self._line(reader)
                if line:
                    await self._answer(line, peer, writer)
                else:
                    return
            except BadRequest as fault:
                await _send(writer, refusal(str(fault)))
            except asyncio.LimitOverrunError:
                await _send(writer, refusal(f"a request is a line of at most {MAX_LINE} bytes"))
                return

    async def _line(self, reader: asyncio.StreamReader) -> bytes:
        """The next line; empty at the end. The last may lack its end."""
        task = asyncio.current_task()
        assert task is not None
        self._idle.pop(task, None)
        self._idle[task] = None
        try:
            async with asyncio.timeout(IDLE_S):
                return await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as end:
            return end.partial
        finally:
            self._idle.pop(task, None)

    async def _answer(self, line: bytes, peer: Peer, writer: asyncio.StreamWriter) -> None:
        async with contextlib.aclosing(self._commands.answer(parse(line), peer)) as pieces:
            async for piece in pieces:
                await _send(writer, piece)


async def _send(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """Raises TimeoutError where the peer does not read."""
    writer.write(piece)
    async with asyncio.timeout(WRITE_S):
        await writer.drain()
