"""Clients that can resume, over real sockets: begun, lost, back, and what the server says of them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from aero_l2.auth.session_token import SessionClaims, mint_session_token
from aero_l2.session.closing import Reason
from aero_l2.wire.tunnel import encode
from support.door import Stand

SECRET = "a session secret that only tests know"
SESSION = {"AERO_L2_SESSION_SECRET": SECRET, "AERO_L2_AUTH_MODE": "session"}
KEPT = {"AERO_L2_RESUME_SECONDS": "60"}
DEADLINE_S = 30


def cookie(sid: str, seconds: float = 600) -> dict[str, str]:
    token = mint_session_token(SessionClaims(sid, time.time() + seconds), SECRET.encode())
    return {"Cookie": f"aero_session={token}"}


async def opened(
    stand: Stand, *more: str, headers: dict[str, str] | None = None, address: str = "127.0.0.1"
) -> ClientConnection:
    """A WebSocket that offers more than the tunnel's protocol. ``address``: from which it comes."""
    offer = [Subprotocol(name) for name in ("aero-l2-tunnel-v1", *more)]
    client = await connect(
        f"ws://127.0.0.1:{stand.door.port}/l2",
        subprotocols=offer,
        additional_headers=headers or {},
        compression=None,
        ping_interval=None,
        proxy=None,
        local_addr=(address, 0),
    )
    assert client.subprotocol == "aero-l2-tunnel-v1"
    return client


async def greeting(client: ClientConnection) -> tuple[str, bool]:
    """The first two messages: the secret, and whether the tunnel is a former one."""
    async with asyncio.timeout(DEADLINE_S):
        first, second = await client.recv(), await client.recv()
    assert isinstance(first, bytes)
    assert first[:4] == b"\xa2\x03\x10\x00"
    assert second in (b"\xa2\x03\x11\x00\x00", b"\xa2\x03\x11\x00\x01")
    return first[4:].decode(), second[-1:] == b"\x01"


async def begun(
    stand: Stand, *, headers: dict[str, str] | None = None, address: str = "127.0.0.1"
) -> tuple[ClientConnection, str]:
    """A new tunnel of a client that can resume, and its secret."""
    client = await opened(stand, "aero-l2-resume", headers=headers, address=address)
    secret, is_resumed = await greeting(client)
    assert not is_resumed
    return client, secret


async def back(
    stand: Stand, secret: str, *, headers: dict[str, str] | None = None, address: str = "127.0.0.1"
) -> tuple[ClientConnection, str, bool]:
    """Whoever comes with a secret: its WebSocket, the next secret, whether it got the tunnel."""
    client = await opened(stand, f"aero-l2-resume.{secret}", headers=headers, address=address)
    return client, *await greeting(client)


async def lost(stand: Stand, client: ClientConnection, kept: int = 1) -> None:
    """Break the connection without a close frame, and wait until the server has noticed."""
    client.transport.abort()
    await until(lambda: stand.value("aero_l2_sessions_kept") == kept, "the tunnel is kept")


async def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.005)


async def ponged(client: ClientConnection) -> None:
    """The server has taken all that was sent before."""
    await client.send(encode(1, b"barrier"))
    async with asyncio.timeout(DEADLINE_S):
        while await client.recv() != encode(2, b"barrier"):
            pass


async def end_of(client: ClientConnection) -> tuple[int | None, str | None]:
    async with asyncio.timeout(DEADLINE_S):
        with contextlib.suppress(ConnectionClosed):
            async for _ in client:
                pass
        await client.wait_closed()
    return client.close_code, client.close_reason


def ends(stand: Stand) -> dict[str, float]:
    counts = {
        reason.value: stand.value("aero_l2_sessions_closed_total", reason=reason.value) for reason in Reason
    }
    return {label: count for label, count in counts.items() if count}


def resumes(stand: Stand) -> tuple[float, float, float]:
    """Resumed, taken over, unknown."""
    found = [stand.value("aero_l2_resumes_total", result=r) for r in ("resumed", "taken_over", "unknown")]
    return found[0], found[1], found[2]
