"""The client library and a tunnel that is lost: what it offers and learns, and what it does with a secret."""

from __future__ import annotations

import asyncio

import pytest
from support.door import standing
from support.peer import BINARY, CLOSE, Peer, Script, Server, close, ethernet, frame, serving
from support.wait import until

from aero_l2.client import (
    ClientError,
    LimitReached,
    Options,
    ReconnectPolicy,
    Target,
    Tunnel,
    TunnelClosed,
    TunnelLost,
    connect,
    run_reconnecting,
)
from aero_l2.client.link import secret_of
from aero_l2.wire.tunnel import RESUME_SECRET_BYTES, encode, encode_resume

OPTIONS = Options(keepalive_s=0, open_timeout_s=30, resume=True)
QUICK = ReconnectPolicy(first_s=0.01, longest_s=0.05)
SECRET = "0123456789-the-secret-0123456789"
DEADLINE_S = 30


def told(secret: str, *, is_resumed: bool) -> bytes:
    """What a server says first."""
    return b"".join(frame(BINARY, message) for message in encode_resume(secret, is_resumed=is_resumed))


def breaks(secret: str, *, is_resumed: bool = False) -> Script:
    """A server that opens a tunnel, sends a frame, and is cut off."""

    async def script(peer: Peer) -> None:
        peer.accept(behind=told(secret, is_resumed=is_resumed) + ethernet(b"x" * 14))
        await peer.writer.drain()
        peer.writer.write_eof()

    return script


async def closes(peer: Peer) -> None:
    peer.accept(behind=told(SECRET, is_resumed=False) + ethernet(b"x" * 14) + close(1001, "shutting down"))
    await peer.gone()


async def is_full(peer: Peer) -> None:
    said = f"no room for {SECRET}".encode()
    peer.send(b"HTTP/1.1 429 No\r\nContent-Length: %d\r\n\r\n" % len(said) + said)
    await peer.writer.drain()


async def ends(peer: Peer) -> None:
    peer.accept(behind=told("the-end", is_resumed=True) + ethernet(b"the end of it."))
    await peer.gone()


def offered(server: Server) -> list[list[str]]:
    """What each connection offered besides the tunnel's protocol."""
    lines = [peer.headers("Sec-WebSocket-Protocol")[0].split(", ") for peer in server.peers]
    return [[one for one in line if one != "aero-l2-tunnel-v1"] for line in lines]


async def drain(tunnel: Tunnel) -> None:
    """Receive until the end."""
    async for received in tunnel.frames():
        if received == b"the end of it.":
            return


async def run(
    *scripts: Script, policy: ReconnectPolicy = QUICK, options: Options | None = None
) -> tuple[list[list[str]], list[bool]]:
    """What was offered, and which tunnels were former ones."""
    resumed: list[bool] = []

    async def serve(tunnel: Tunnel) -> None:
        resumed.append(tunnel.is_resumed)
        await drain(tunnel)

    async with serving(*scripts, handshake=False) as server, asyncio.timeout(DEADLINE_S):
        given = options or Options(keepalive_s=0, open_timeout_s=30)
        await run_reconnecting(server.url, serve, given, policy)
        return offered(server), resumed


async def test_lost_tunnel_is_asked_for_by_its_latest_secret() -> None:
    what, resumed = await run(breaks("first"), breaks("second", is_resumed=True), ends)
    assert what == [["aero-l2-resume"], ["aero-l2-resume.first"], ["aero-l2-resume.second"]]
    assert resumed == [False, True, True]


async def test_closed_tunnel_is_not_asked_for() -> None:
    assert (await run(closes, ends))[0] == [["aero-l2-resume"]] * 2


async def test_secret_outlives_attempts_that_fail() -> None:
    what, _ = await run(breaks(SECRET), is_full, is_full, ends)
    assert what == [["aero-l2-resume"]] + [[f"aero-l2-resume.{SECRET}"]] * 3


async def test_new_tunnel_instead_of_the_former_is_told_apart() -> None:
    what, resumed = await run(breaks("first"), breaks("second"), ends)
    assert what[2] == ["aero-l2-resume.second"]
    assert resumed == [False, False, True]


async def test_nothing_is_offered_where_nobody_would_come_back() -> None:
    async with serving(breaks(SECRET), handshake=False) as server:
        with pytest.raises(TunnelLost):
            await run_reconnecting(server.url, drain, policy=ReconnectPolicy(attempts=1))
        assert offered(server) == [[]]
    async with serving(ends, handshake=False) as server:
        async with connect(server.url) as tunnel:
            await drain(tunnel)
        await run_reconnecting(server.url, drain, policy=ReconnectPolicy(resume=False))
        assert offered(server) == [[], []]


async def test_server_that_cannot_resume_is_found_out_by_a_ping() -> None:
    async def knows_nothing(peer: Peer) -> None:
        peer.accept()
        assert await peer.message() == encode(1, (1).to_bytes(8, "big"))
        peer.send(frame(BINARY, encode(2, (1).to_bytes(8, "big"))))
        await peer.gone()

    async with (
        serving(knows_nothing, handshake=False) as server,
        asyncio.timeout(DEADLINE_S / 2),
        connect(server.url, OPTIONS, SECRET) as tunnel,
    ):
        assert not tunnel.is_resumed
        assert tunnel.resume_secret is None


async def test_server_that_answers_nothing_costs_the_time_to_open() -> None:
    async def says_nothing(peer: Peer) -> None:
        peer.accept()
        await peer.gone()

    options = Options(keepalive_s=0, open_timeout_s=1)
    async with (
        serving(says_nothing, handshake=False) as server,
        asyncio.timeout(DEADLINE_S),
        connect(server.url, options, SECRET) as tunnel,
    ):
        assert not tunnel.is_resumed


async def test_whoever_is_cancelled_meanwhile_leaves_no_connection() -> None:
    reached = asyncio.Event()
    gone = asyncio.Event()

    async def says_nothing(peer: Peer) -> None:
        peer.accept()
        await peer.message()
        reached.set()
        await peer.gone()
        gone.set()

    async def use(url: str) -> None:
        async with connect(url, OPTIONS, SECRET):
            raise AssertionError

    async with serving(says_nothing, handshake=False) as server, asyncio.timeout(DEADLINE_S):
        task = asyncio.create_task(use(server.url))
        await reached.wait()
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
        await gone.wait()


async def test_tunnel_that_ends_meanwhile_says_why() -> None:
    async def closes_at_once(peer: Peer) -> None:
        peer.accept(behind=close(1001, "shutting down"))
        await peer.gone()

    async with serving(closes_at_once, handshake=False) as server, asyncio.timeout(DEADLINE_S):
        async with connect(server.url, OPTIONS, SECRET) as tunnel:
            with pytest.raises(TunnelClosed) as ended:
                await tunnel.receive_frames()
        assert ended.value.reason == "shutting down"


@pytest.mark.parametrize("resumable", [True, False])
async def test_silent_server_gets_a_close_frame_only_where_it_keeps_nothing(resumable: bool) -> None:
    said: list[int] = []

    async def falls_silent(peer: Peer) -> None:
        peer.accept(behind=told(SECRET, is_resumed=False) if resumable else b"")
        while True:
            opcode, _ = await peer.receive()
            said.append(opcode)

    async with serving(falls_silent, handshake=False) as server, asyncio.timeout(DEADLINE_S):
        options = Options(keepalive_s=0.2, open_timeout_s=30, resume=True)
        async with connect(server.url, options) as tunnel:
            with pytest.raises(TunnelLost, match="does not answer any more"):
                await drain(tunnel)
            assert tunnel.resume_secret == (SECRET if resumable else None)
        if not resumable:
            await until(lambda: CLOSE in said, "a close frame", DEADLINE_S)
    assert (CLOSE in said) is not resumable


async def test_program_that_ends_says_so_and_nothing_is_kept() -> None:
    async with standing(AERO_L2_RESUME_SECONDS="60") as stand:
        url = f"ws://127.0.0.1:{stand.door.port}/l2"
        async with connect(url, OPTIONS) as tunnel:
            await until(lambda: tunnel.resume_secret is not None, "the secret", DEADLINE_S)
        await stand.until(lambda: stand.door.active == 0, "released")
        assert stand.value("aero_l2_sessions_closed_total", reason="peer_closed") == 1


async def test_library_and_server_agree() -> None:
    resumed: list[bool] = []

    async def serve(tunnel: Tunnel) -> None:
        resumed.append(tunnel.is_resumed)
        await until(lambda: tunnel.resume_secret is not None, "the secret", DEADLINE_S)
        if len(resumed) == 5:
            return
        tunnel._link._connection.transport.abort()
        await drain(tunnel)

    async with standing(AERO_L2_RESUME_SECONDS="60") as stand, asyncio.timeout(DEADLINE_S):
        url = f"ws://127.0.0.1:{stand.door.port}/l2"
        await run_reconnecting(url, serve, policy=QUICK)
        assert resumed == [False, True, True, True, True]
        assert stand.value("l2_sessions_total") == 1


async def test_no_text_of_the_library_shows_the_secret() -> None:
    async with serving(is_full, handshake=False) as server:
        with pytest.raises(ClientError) as refused:
            async with connect(server.url, OPTIONS, SECRET):
                raise AssertionError
    assert isinstance(refused.value, LimitReached)
    target = Target.of(server.url).resuming(SECRET)
    assert SECRET not in f"{refused.value} {refused.value!r} {refused.value.body} {target!r} {target}"


def test_what_is_no_secret_is_none() -> None:
    assert secret_of(SECRET.encode()) == SECRET
    assert len(SECRET) == RESUME_SECRET_BYTES
    for payload in (b"", b"a b", b"a,b", b"a\r\nX: y", b"\xff", b"a" * 257):
        assert secret_of(payload) is None
