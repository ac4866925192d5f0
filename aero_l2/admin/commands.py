"""What the commands of the admin socket do, and their answers (docs/admin.md)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, cast

import structlog

from aero_l2.admin.peer import Peer
from aero_l2.admin.protocol import COMMANDS, BadRequest, Request
from aero_l2.admin.rates import LOOK_EVERY_S, Counted, Rates
from aero_l2.errors import CaptureUnavailable
from aero_l2.session.capturing import TunnelCapture
from aero_l2.session.closing import Reason
from aero_l2.session.lifecycle import Phase
from aero_l2.session.tunnel import Tunnel
from aero_l2.session.tunnels import Tunnels

SLICE_S: Final = 0.001
"""How long a list is worked on before everything else of the event loop has its turn."""

_log = structlog.get_logger(component="admin")

Facts = dict[str, object]


@dataclass(frozen=True, slots=True)
class Server:
    """What the commands reach of the server besides its tunnels.

    status, version: answers, without `ok`. drain: begins the end as SIGTERM does.
    """

    status: Callable[[], Facts]
    version: Callable[[], Facts]
    drain: Callable[[], None]


class Commands:
    """The commands on a server's tunnels. `watch` has to run all the time, for rates."""

    def __init__(self, tunnels: Tunnels, server: Server) -> None:
        self._tunnels = tunnels
        self._server = server
        self._rates = Rates()

    async def watch(self) -> None:
        """Look at what goes through every `LOOK_EVERY_S`, until cancelled; a µs for each tunnel."""
        while True:
            counted = {tunnel.session_id: _counted(tunnel) for tunnel in self._tunnels.live}
            self._rates.look(time.monotonic(), counted)
            await asyncio.sleep(LOOK_EVERY_S)

    async def answer(self, request: Request, peer: Peer) -> AsyncGenerator[bytes, None]:
        """The answer, in pieces, to be sent one after the other; its last byte ends the line.

        Raises BadRequest before the first piece.
        """
        if request.command.name == "sessions":
            async for piece in self._sessions():
                yield piece
            return
        try:
            done = await self._do(request)
        except BadRequest as fault:
            _note(request, peer, "refused", text=str(fault))
            raise
        _note(request, peer, "done")
        yield encoded({"ok": True, **done})

    async def _do(self, request: Request) -> Facts:
        match request.command.name:
            case "status":
                return self._server.status()
            case "version":
                return self._server.version()
            case "session":
                return {"session": await self._session(request.session)}
            case "kick":
                return self._kick(self._found(request.session))
            case "capture start":
                return {"capture": await self._captured(request.session, TunnelCapture.start)}
            case "capture stop":
                return {"captured": await self._captured(request.session, TunnelCapture.stop)}
            case "drain":
                self._server.drain()
                return {"draining": True, "tunnels": self._tunnels.active}
            case _:
                return {"commands": {command.usage: command.text for command in COMMANDS}}

    async def _sessions(self) -> AsyncGenerator[bytes, None]:
        """All tunnels that stand, a slice at a time; those that end meanwhile are left out."""
        piece, separator = '{"ok": true, "sessions": [', ""
        began = time.perf_counter()
        for tunnel in self._tunnels.live:
            if not self._tunnels.stands(tunnel):
                continue
            piece += separator + json.dumps(self._facts(tunnel))
            separator = ", "
            if time.perf_counter() - began > SLICE_S:
                yield piece.encode()
                await asyncio.sleep(0)
                piece, began = "", time.perf_counter()
        yield (piece + "]}\n").encode()

    async def _session(self, session_id: int) -> Facts:
        await self._found(session_id).refresh()
        return self._facts(self._found(session_id))

    def _kick(self, tunnel: Tunnel) -> Facts:
        phase = tunnel.life.phase
        if phase is Phase.PREPARING:
            raise BadRequest(f"session {tunnel.session_id} is not open yet: try again")
        if not tunnel.life.is_live:
            raise BadRequest(f"session {tunnel.session_id} is {phase.value} already")
        tunnel.close(Reason.KICKED)
        return {"kicked": tunnel.session_id}

    async def _captured(self, session_id: int, change: Callable[[TunnelCapture], Awaitable[str]]) -> str:
        """The path of the file."""
        try:
            return await change(self._found(session_id).capture)
        except CaptureUnavailable as fault:
            raise BadRequest(f"session {session_id}: {fault}") from fault

    def _found(self, session_id: int) -> Tunnel:
        tunnel = self._tunnels.find(session_id)
        if tunnel is None:
            raise BadRequest(f"there is no session {session_id}")
        return tunnel

    def _facts(self, tunnel: Tunnel) -> Facts:
        now = time.monotonic()
        facts = tunnel.facts(now)
        age_s = cast("float | None", facts["age_s"])
        return {**facts, **self._rates.of(tunnel.session_id, now, age_s, _counted(tunnel))}


def encoded(answer: Facts) -> bytes:
    """An answer as it is sent: one line of ASCII."""
    return json.dumps(answer).encode() + b"\n"


def refusal(text: str) -> bytes:
    """The answer that says why not."""
    return encoded({"ok": False, "error": text})


def _counted(tunnel: Tunnel) -> Counted:
    traffic = tunnel.traffic
    return traffic.frames_rx, traffic.bytes_rx, traffic.frames_tx, traffic.bytes_tx


def _note(request: Request, peer: Peer, result: str, **why: str) -> None:
    """Whoever changes something is in the log, also where that leaves out what is less than a warning."""
    if request.command.changes:
        session = {"session": request.session} if request.command.arguments else {}
        _log.warning(
            "admin command",
            command=request.command.name,
            **session,
            result=result,
            **why,
            uid=peer.uid,
            pid=peer.pid,
        )
