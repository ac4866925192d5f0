"""The admin socket's server in the test's own process: bounds, and the answers over fake segments."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs
from support.door import OFFER, Stand, bare_tunnel, standing
from support.wait import until

from aero_l2.admin import server as module
from aero_l2.admin.commands import Commands, Server
from aero_l2.admin.protocol import MAX_LINE
from aero_l2.admin.server import MAX_CONNECTIONS, AdminServer
from aero_l2.session.lifecycle import Phase
from aero_l2.session.tunnel import Tunnel
from aero_l2.session.tunnels import Tunnels


@dataclass
class Admin:
    """A served socket. drained: whether `drain` came."""

    path: str
    server: AdminServer
    drained: asyncio.Event

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path, limit=1 << 26)

    async def ask(self, request: bytes) -> dict[str, Any]:
        reader, writer = await self.connect()
        try:
            writer.write(request + b"\n")
            async with asyncio.timeout(20):
                answer = json.loads(await reader.readline())
            assert isinstance(answer, dict)
            return answer
        finally:
            writer.close()


@asynccontextmanager
async def admin_of(tunnels: Tunnels, folder: Path) -> AsyncIterator[Admin]:
    path = str(folder / "admin.sock")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    listener.bind(path)
    os.umask(mask)
    listener.listen(64)
    file = os.open(path, os.O_PATH)
    drained = asyncio.Event()
    answers = Server(lambda: {"ready": True}, lambda: {"version": "1"}, drained.set)
    server = AdminServer(listener, file, Commands(tunnels, answers))
    server.start()
    try:
        yield Admin(path, server, drained)
    finally:
        await server.close()
        os.close(file)


@asynccontextmanager
async def admin_of_stand(
    folder: Path, clients: int = 0, **settings: str
) -> AsyncIterator[tuple[Admin, Stand]]:
    async with AsyncExitStack() as stack:
        stand = await stack.enter_async_context(standing(**settings))
        for _ in range(clients):
            client = await stand.client()
            stack.push_async_callback(client.close)
        yield await stack.enter_async_context(admin_of(stand.door.tunnels, folder)), stand


async def test_sessions_are_listed_oldest_first_and_found_by_id(tmp_path: Path) -> None:
    async with admin_of_stand(tmp_path, clients=3) as (admin, _):
        answer = await admin.ask(b"sessions")
        assert [one["id"] for one in answer["sessions"]] == [1, 2, 3]
        assert (await admin.ask(b"session 2"))["session"]["id"] == 2
        assert await admin.ask(b"session 4") == {"ok": False, "error": "there is no session 4"}


async def test_kick_closes_that_tunnel_alone(tmp_path: Path) -> None:
    async with admin_of_stand(tmp_path, clients=2) as (admin, stand):
        kicked = await stand.client()
        with capture_logs() as lines:
            assert await admin.ask(b"kick 3") == {"ok": True, "kicked": 3}
        await kicked.wait_closed()
        assert (kicked.close_code, kicked.close_reason) == (1008, "closed by the operator")
        await stand.until(lambda: stand.door.active == 2, "the others stay")
        [line] = [line for line in lines if line["event"] == "admin command"]
        assert (line["command"], line["session"], line["result"]) == ("kick", 3, "done")
        assert (line["uid"], line["pid"]) == (os.getuid(), os.getpid())
        assert line["log_level"] == "warning"


async def test_tunnel_that_waits_for_its_client_can_be_closed_too(tmp_path: Path) -> None:
    offer = OFFER.replace("\r\n", ", aero-l2-resume\r\n")
    async with admin_of_stand(tmp_path, AERO_L2_RESUME_SECONDS="60") as (admin, stand):
        (await bare_tunnel(stand, "/l2", offer)).close()
        [tunnel] = stand.door.tunnels.live
        await until(lambda: tunnel.life.phase is Phase.KEPT, "it is kept")
        assert (await admin.ask(b"session 1"))["session"]["state"] == "kept"
        assert (await admin.ask(b"kick 1"))["ok"]
        await stand.until(lambda: stand.door.active == 0, "it is released")
        assert stand.value("aero_l2_sessions_closed_total", reason="kicked") == 1


async def test_what_only_asks_is_not_logged(tmp_path: Path) -> None:
    async with admin_of_stand(tmp_path, clients=1) as (admin, _):
        with capture_logs() as lines:
            for request in (b"status", b"sessions", b"session 1", b"help", b"version", b"nonsense"):
                await admin.ask(request)
        assert not lines


async def test_drain_is_passed_on(tmp_path: Path) -> None:
    async with admin_of_stand(tmp_path) as (admin, _):
        assert (await admin.ask(b"drain"))["ok"]
        assert admin.drained.is_set()


async def test_several_requests_on_one_connection_and_a_last_one_without_an_end(tmp_path: Path) -> None:
    async with admin_of_stand(tmp_path) as (admin, _):
        reader, writer = await admin.connect()
        writer.write(b"version\nbogus\nstatus")
        writer.write_eof()
        answers = [json.loads(line) for line in (await reader.read()).splitlines()]
        assert [answer["ok"] for answer in answers] == [True, False, True]
        writer.close()


async def test_line_that_is_too_long_is_refused_and_the_connection_closed(tmp_path: Path) -> None:
    async with admin_of_stand(tmp_path) as (admin, _):
        reader, writer = await admin.connect()
        writer.write(b"x" * (MAX_LINE + 1))
        assert f"at most {MAX_LINE} bytes" in json.loads(await reader.readline())["error"]
        with contextlib.suppress(ConnectionError):  # what it had not read is lost
            assert await reader.read() == b""
        writer.close()


async def test_any_bytes_are_survived_and_keep_nobody_waiting(tmp_path: Path) -> None:
    chance = random.Random(9)
    async with admin_of_stand(tmp_path, clients=1) as (admin, _):
        for _ in range(200):
            _, writer = await admin.connect()
            with contextlib.suppress(ConnectionError):
                writer.write(chance.randbytes(chance.randrange(2 * MAX_LINE)))
                await writer.drain()
            if chance.random() < 0.5:
                writer.transport.abort()
            else:
                writer.close()
        assert (await admin.ask(b"sessions"))["ok"]


async def test_thousand_idle_connections_keep_nobody_out(tmp_path: Path) -> None:
    async with admin_of_stand(tmp_path) as (admin, _), AsyncExitStack() as stack:
        for _ in range(1000):
            _, writer = await admin.connect()
            stack.callback(writer.transport.abort)
            assert len(admin.server._tasks) <= MAX_CONNECTIONS
        assert (await admin.ask(b"version"))["ok"]
        await until(lambda: len(admin.server._tasks) <= MAX_CONNECTIONS, "the oldest are gone")


async def test_idle_connection_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_S", 0.05)
    async with admin_of_stand(tmp_path) as (admin, _):
        reader, writer = await admin.connect()
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


class Repeated:
    """One real tunnel, so many times over."""

    def __init__(self, tunnel: Tunnel, times: int) -> None:
        self.live = [tunnel] * times
        self.active = times

    def stands(self, tunnel: Tunnel) -> bool:
        return True

    def find(self, session_id: int) -> Tunnel:
        return self.live[0]


@asynccontextmanager
async def admin_of_thousand(folder: Path) -> AsyncIterator[Admin]:
    async with admin_of_stand(folder, clients=1) as (_, stand):
        many = cast(Tunnels, Repeated(stand.door.tunnels.live[0], 1000))
        (folder / "thousand").mkdir()
        async with admin_of(many, folder / "thousand") as admin:
            yield admin


async def test_thousand_sessions_are_listed_in_slices(tmp_path: Path) -> None:
    """By the loop's own CPU time, since other programs share the machine: at most 5 ms in a turn, here 25."""
    turns: list[float] = []

    async def look() -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            turns.append(now - before)
            before = now

    async with admin_of_thousand(tmp_path) as admin:
        reader, writer = await admin.connect()
        looking = asyncio.create_task(look())
        writer.write(b"sessions\n")
        line = await reader.readline()
        looking.cancel()
        writer.close()
        assert len(json.loads(line)["sessions"]) == 1000
        assert max(turns) < 0.025
        assert sum(turn > 0.0005 for turn in turns) >= 5


async def test_slow_reader_keeps_nobody_waiting_and_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WRITE_S", 0.2)
    async with admin_of_thousand(tmp_path) as admin:
        loop = asyncio.get_running_loop()
        slow = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        slow.setblocking(False)
        await loop.sock_connect(slow, admin.path)
        await loop.sock_sendall(slow, b"sessions\n" * 4)
        assert (await admin.ask(b"version"))["ok"]
        await until(lambda: not admin.server._tasks, "it is dropped")
        slow.close()


async def test_socket_that_was_opened_to_others_is_for_our_own_user_only(tmp_path: Path) -> None:
    """Here the test is that user; another one: tests/integration/test_admin.py."""
    async with admin_of_stand(tmp_path) as (admin, _):
        os.chmod(admin.path, 0o666)
        assert (await admin.ask(b"version"))["ok"]
