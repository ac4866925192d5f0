"""The client's tunnel against a scripted server, which is as hostile as it likes."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import time
from collections.abc import AsyncIterator

import pytest
import uvloop
from support.peer import (
    BINARY,
    CLOSE,
    CONT,
    HEADERS,
    PING,
    PONG,
    TEXT,
    Peer,
    Script,
    close,
    error,
    ethernet,
    frame,
    serving,
)
from support.wait import until

from aero_l2 import tasks
from aero_l2.client import ClosedHere, Options, Tunnel, TunnelClosed, TunnelLost, connect
from aero_l2.wire.tunnel import ErrorCode

PATIENT = Options(keepalive_s=0, open_timeout_s=30)
FRAME = b"\x52\x54" * 20


@pytest.fixture(autouse=True)
async def quiet(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Nothing is logged, no exception is left for the loop to report, and no task is left running."""
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    yield
    gc.collect()
    await asyncio.sleep(0)
    assert not reported
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not tasks.running()


async def mute(peer: Peer) -> None:
    """Read until the client is gone, and say nothing."""
    await peer.gone()


async def idle(peer: Peer) -> None:
    """Read, and say nothing until the client closes."""
    while True:
        opcode, payload = await peer.receive()
        if opcode == CLOSE:
            peer.send(frame(CLOSE, payload))
            return


async def echo(peer: Peer) -> None:
    """Answer PING, send frames back, close as a server does."""
    while True:
        opcode, payload = await peer.receive()
        if opcode == CLOSE:
            peer.send(frame(CLOSE, payload))
            return
        if payload[2] == 1:
            payload = HEADERS["pong"] + payload[4:]
        peer.send(frame(BINARY, payload))


def says(*data: bytes) -> Script:
    """Send these, then read until the client is gone."""

    async def script(peer: Peer) -> None:
        for piece in data:
            peer.send(piece)
        await idle(peer)

    return script


async def send_for_ever(tunnel: Tunnel) -> None:
    while True:
        await tunnel.send_frame(bytes(2000))


async def end_of(tunnel: Tunnel, timeout_s: float = 15) -> TunnelClosed:
    return await asyncio.wait_for(tunnel.wait_closed(), timeout_s)


async def test_frames_go_out_and_come_in() -> None:
    async with serving(echo) as server, connect(server.url, PATIENT) as tunnel:
        await tunnel.send_frame(FRAME)
        assert tunnel.offer_frame(FRAME + b"2")
        got = [await anext(tunnel.frames()), await anext(tunnel.frames())]
        assert got == [FRAME, FRAME + b"2"]
        stats = tunnel.stats
        assert (stats.frames_sent, stats.bytes_sent) == (2, 81)
        assert (stats.frames_received, stats.bytes_received) == (2, 81)
        assert tunnel.ended is None


async def test_frames_that_come_with_the_101_are_received() -> None:
    async def script(peer: Peer) -> None:
        peer.accept(behind=ethernet(b"one") + ethernet(b"two")[:3])
        await peer.writer.drain()
        peer.send(ethernet(b"two")[3:])
        await peer.gone()

    async with serving(script, handshake=False) as server, connect(server.url, PATIENT) as tunnel:
        frames = tunnel.frames()
        assert [await anext(frames), await anext(frames)] == [b"one", b"two"]


async def test_frames_are_one_by_one_and_none_is_lost_in_between() -> None:
    async with (
        serving(says(*(ethernet(bytes([n])) for n in range(9)))) as server,
        connect(server.url, PATIENT) as tunnel,
    ):
        await until(lambda: tunnel.stats.frames_received == 9, "all frames")
        one = await anext(tunnel.frames())
        assert one + b"".join(await tunnel.receive_frames()) == bytes(range(9))


async def test_ping_is_answered_and_measured() -> None:
    async with serving(echo) as server, connect(server.url, PATIENT) as tunnel:
        rtts = await asyncio.gather(*(tunnel.ping() for _ in range(5)))
        assert all(0 < rtt < 5 for rtt in rtts)
        assert tunnel.stats.rtt_s in rtts


async def test_ping_without_an_answer_is_a_timeout_and_the_tunnel_stays() -> None:
    async with serving(idle) as server, connect(server.url, PATIENT) as tunnel:
        with pytest.raises(TimeoutError):
            await tunnel.ping(timeout_s=0.05)
        assert tunnel.ended is None


async def test_pongs_that_nobody_asked_for_or_that_come_twice_are_ignored() -> None:
    async def script(peer: Peer) -> None:
        peer.send(frame(BINARY, HEADERS["pong"] + bytes(8)) + frame(BINARY, HEADERS["pong"]))
        ping = await peer.message()
        peer.send(2 * frame(BINARY, HEADERS["pong"] + ping[4:]))
        await peer.gone()

    async with serving(script) as server, connect(server.url, PATIENT) as tunnel:
        assert await tunnel.ping() < 5
        assert tunnel.ended is None


async def test_pings_of_the_server_are_answered() -> None:
    answers: list[tuple[int, bytes]] = []

    async def script(peer: Peer) -> None:
        peer.send(frame(BINARY, HEADERS["ping"] + b"12345678") + frame(PING, b"websocket"))
        answers.extend([await peer.receive(), await peer.receive()])
        await peer.gone()

    async with serving(script) as server, connect(server.url, PATIENT):
        await until(lambda: len(answers) == 2, "both answers")
    assert sorted(answers) == [(BINARY, HEADERS["pong"] + b"12345678"), (PONG, b"websocket")]


async def test_pings_are_answered_while_the_program_receives_nothing() -> None:
    answers: list[bytes] = []

    async def script(peer: Peer) -> None:
        peer.send(b"".join(ethernet(bytes(60)) for _ in range(7)) + frame(BINARY, HEADERS["ping"] + b"x"))
        answers.append(await peer.message())
        await peer.gone()

    async with serving(script) as server, connect(server.url, PATIENT):
        await until(lambda: answers, "the answer")


async def test_text_unknown_types_and_flags_are_ignored() -> None:
    async with (
        serving(
            says(
                frame(TEXT, b"hello") + frame(TEXT, b"\xff\xfe"),
                frame(TEXT, b"in", final=False) + frame(CONT, b" parts"),
                frame(BINARY, b"\xa2\x03\x55\x00whatever") + frame(PONG, b"?"),
                frame(BINARY, b"\xa2\x03\x00\xffflags"),
            )
        ) as server,
        connect(server.url, PATIENT) as tunnel,
    ):
        assert await tunnel.receive_frames() == [b"flags"]


async def test_fragments_are_one_message() -> None:
    message = HEADERS["frame"] + FRAME
    parts = frame(BINARY, message[:3], final=False) + 5000 * frame(CONT, final=False)
    async with (
        serving(says(parts, frame(PING), frame(CONT, message[3:]))) as server,
        connect(server.url, PATIENT) as tunnel,
    ):
        assert await tunnel.receive_frames() == [FRAME]


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (frame(BINARY, b"\xa2"), "message too short: 1 < 4"),
        (frame(BINARY), "message too short: 0 < 4"),
        (frame(BINARY, b"GET / HTTP"), "invalid magic: 0x47"),
        (frame(BINARY, b"\xa2\x04\x00\x00"), "unsupported version: 0x04"),
        (frame(BINARY, bytes(70_000)), "frame with 70000 bytes exceeds limit of 65539 bytes"),
        (frame(BINARY, bytes(60_000), final=False) + frame(CONT, bytes(9_000)), "exceeds limit"),
        (b"\x82\x7f" + b"\x7f" * 8, "exceeds limit"),
        (frame(CONT), "unexpected continuation frame"),
        (frame(0x3), "invalid opcode"),
        (b"\x82\x84mask1234", "incorrect masking"),
        (close(999), "invalid status code"),
        (close(1006), "invalid status code"),
        (close(1000, b"\xff"), "invalid start byte"),
        (frame(CLOSE, b"\x03"), "close frame too short"),
        (frame(PING, bytes(126)), "control frame too long"),
    ],
)
async def test_what_is_no_tunnel_ends_it_and_says_so(sent: bytes, why: str) -> None:
    async with serving(says(sent)) as server, connect(server.url, PATIENT) as tunnel:
        ended = await end_of(tunnel)
        assert isinstance(ended, TunnelLost)
        assert why in str(ended)
        assert ended.close_code == 1006
        with pytest.raises(TunnelLost):
            await tunnel.send_frame(FRAME)
        with pytest.raises(TunnelLost):
            await tunnel.ping()


@pytest.mark.parametrize(
    ("sent", "code", "reason"),
    [
        (close(1001, "shutting down"), 1001, "shutting down"),
        (close(1008, "\x1b]0;owned\x07 a\n\nb \u202e"), 1008, "?]0;owned? a b ?"),
        (close(4999, "ä" * 61), 4999, "ä" * 61),
        (close(), 1005, ""),
    ],
)
async def test_close_frame_is_told(sent: bytes, code: int, reason: str) -> None:
    async with serving(says(sent)) as server, connect(server.url, PATIENT) as tunnel:
        ended = await end_of(tunnel)
        assert type(ended) is TunnelClosed
        assert (ended.close_code, ended.reason, ended.error) == (code, reason, None)
        assert ended is tunnel.ended
        assert str(ended).isprintable()


async def test_error_before_the_close_is_told_behind_the_frames_that_came_before() -> None:
    sent = ethernet(b"last") + error(9, "outbound websocket backpressure") + close(1008, "outbound …")
    async with serving(says(sent)) as server, connect(server.url, PATIENT) as tunnel:
        await end_of(tunnel)
        assert await tunnel.receive_frames() == [b"last"]
        with pytest.raises(TunnelClosed, match="close code 1008, ERROR 9") as caught:
            await tunnel.receive_frames()
        assert caught.value.error_code is ErrorCode.BACKPRESSURE
        assert caught.value.error is not None
        assert caught.value.error.text == "outbound websocket backpressure"


@pytest.mark.parametrize(
    "payload", [b"", b"\x00", b"\xff\xff\xff\xff", b"\x00\x01\xff\xff" + bytes(60_000), b"\xff" * 65_000]
)
async def test_any_error_message_is_survived(payload: bytes) -> None:
    sent = frame(BINARY, b"\xa2\x03\x7f\x00" + payload) + close(1008, "over")
    async with serving(says(sent)) as server, connect(server.url, PATIENT) as tunnel:
        ended = await end_of(tunnel)
        assert len(str(ended)) < 400
        assert str(ended).isprintable()


async def test_only_the_last_of_endless_errors_is_kept() -> None:
    async with (
        serving(says(200 * error(3, "x" * 60_000), error(6, "the last"), close(1008))) as server,
        connect(server.url, PATIENT) as tunnel,
    ):
        ended = await end_of(tunnel)
        assert ended.error_code is ErrorCode.QUOTA_BYTES


async def test_connection_that_breaks_is_lost() -> None:
    async def script(peer: Peer) -> None:
        peer.writer.transport.abort()

    async with serving(script) as server, connect(server.url, PATIENT) as tunnel:
        with pytest.raises(TunnelLost, match=r"Connection reset by peer|without a close frame"):
            await tunnel.receive_frames()


async def test_every_waiting_call_ends_with_the_tunnel() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await go.wait()
        peer.send(close(1001, "shutting down"))
        await peer.writer.drain()

    async with serving(script) as server, connect(server.url, PATIENT) as tunnel:
        calls = [tunnel.receive_frames(), tunnel.receive_frames(), tunnel.ping(60), send_for_ever(tunnel)]
        waiting = [asyncio.ensure_future(call) for call in calls]
        await until(lambda: len(tunnel._link.outgoing) == PATIENT.queued_frames, "nothing more goes out")
        go.set()
        ends = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
        assert {str(end) for end in ends} == {"the server closed the tunnel: shutting down (close code 1001)"}


async def test_full_queue_makes_offers_fail_and_counts_them() -> None:
    async with serving(echo) as server, connect(server.url, PATIENT) as tunnel:
        taken = [tunnel.offer_frame(FRAME) for _ in range(PATIENT.queued_frames + 5)]
        assert taken == [True] * PATIENT.queued_frames + [False] * 5
        assert tunnel.stats.frames_dropped == 5
        await until(lambda: tunnel.offer_frame(FRAME), "room")


async def test_frame_that_would_end_the_tunnel_is_dropped_and_counted() -> None:
    async with serving(echo) as server, connect(server.url, PATIENT) as tunnel:
        assert not tunnel.offer_frame(bytes(2049))
        await tunnel.send_frame(bytes(2049))
        await tunnel.send_frame(bytes(2048))
        assert [len(one) for one in await tunnel.receive_frames()] == [2048]
        assert tunnel.stats.frames_dropped == 2


async def test_server_is_not_read_while_the_program_does_not_receive() -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        while True:
            peer.send(ethernet(bytes(60_000)))
            await peer.writer.drain()
            sent += 60_000

    async with serving(script) as server, connect(server.url, PATIENT) as tunnel:
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.2)
        kept = tunnel.stats.frames_received
        assert PATIENT.queued_frames <= kept < PATIENT.queued_frames + 10
        with pytest.raises(TimeoutError):
            await tunnel.ping(timeout_s=0.1)  # its answer is behind them all
        for _ in range(5):
            await tunnel.receive_frames()
        assert tunnel.stats.frames_received > kept
    assert isinstance(tunnel.ended, ClosedHere)


@pytest.mark.slow
@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(100 * frame(PING, bytes(125)), id="websocket-pings"),
        pytest.param(100 * frame(BINARY, HEADERS["ping"] + bytes(256)), id="pings"),
        pytest.param(100 * frame(BINARY, b"\xa2\x03\x55\x00"), id="unknown"),
        pytest.param(100 * frame(TEXT, bytes(1000)), id="texts"),
        pytest.param(frame(BINARY, HEADERS["frame"], final=False), id="parts"),
        pytest.param(10 * ethernet(bytes(60_000)), id="frames"),
    ],
)
async def test_flood_of_a_server_that_reads_nothing_takes_no_memory(flood: bytes) -> None:
    flooding = flood.startswith(b"\x02")
    more = 100 * frame(CONT, final=False) if flooding else flood

    async def script(peer: Peer) -> None:
        peer.send(flood)
        await peer.flood(more)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with serving(script) as server, connect(server.url, PATIENT) as tunnel:
        end = time.monotonic() + 1
        while tunnel.ended is None and time.monotonic() < end:  # noqa: ASYNC110 (a time, not a condition)
            await asyncio.sleep(0.05)
        if tunnel.ended is not None:
            assert "does not read the answers" in str(tunnel.ended)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 80 * 1024, "the client keeps what a server sends"


async def test_server_that_is_silent_is_lost() -> None:
    options = Options(keepalive_s=0.2)
    async with serving(idle) as server, connect(server.url, options) as tunnel:
        with pytest.raises(TunnelLost, match="does not answer any more"):
            await tunnel.receive_frames()


async def test_server_that_reads_nothing_is_lost_while_frames_wait() -> None:
    began = time.monotonic()
    async with serving(deaf) as server, connect(server.url, Options(keepalive_s=0.3)) as tunnel:
        with pytest.raises(TunnelLost, match="does not answer any more"):
            await send_for_ever(tunnel)
    assert time.monotonic() - began < 10


async def test_server_that_answers_is_not_lost_and_its_time_is_known() -> None:
    async with serving(echo) as server, connect(server.url, Options(keepalive_s=0.05)) as tunnel:
        seen = set()
        async with asyncio.timeout(10):
            while len(seen) < 5:
                seen.add(tunnel.stats.rtt_s)
                await asyncio.sleep(0.01)
        assert tunnel.ended is None


async def test_program_that_receives_nothing_does_not_lose_the_tunnel() -> None:
    async def script(peer: Peer) -> None:
        for _ in range(300):
            peer.send(ethernet(FRAME))
        await echo(peer)

    async with serving(script) as server, connect(server.url, Options(keepalive_s=0.1)) as tunnel:
        await asyncio.sleep(1)
        assert tunnel.ended is None
        got = 0
        async with asyncio.timeout(10):
            while got < 300:
                got += len(await tunnel.receive_frames())
        assert await tunnel.ping() < 5


async def test_what_was_sent_is_written_before_the_tunnel_closes() -> None:
    got: list[bytes] = []

    async def script(peer: Peer) -> None:
        while True:
            opcode, payload = await peer.receive()
            got.append(payload)
            if opcode == CLOSE:
                peer.send(frame(CLOSE, payload))
                return

    async with serving(script) as server:
        async with connect(server.url, PATIENT) as tunnel:
            for n in range(200):
                await tunnel.send_frame(n.to_bytes(2, "big"))
        await until(lambda: got and got[-1] == b"\x03\xe8", "close 1000")
    assert [int.from_bytes(message[4:], "big") for message in got[:-1]] == list(range(200))


async def deaf(peer: Peer) -> None:
    """Reads nothing, says nothing."""
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.Event().wait()


async def loud(peer: Peer) -> None:
    """Reads nothing and sends frames."""
    await peer.flood(100 * ethernet(FRAME))


async def closes_and_stays(peer: Peer) -> None:
    """Sends a close frame, and more behind it, and leaves the connection open."""
    peer.send(close(1001))
    await peer.flood(100 * ethernet(FRAME))


@pytest.mark.slow
@pytest.mark.parametrize("server_does", [mute, deaf, loud, closes_and_stays])
@pytest.mark.parametrize("how", ["return", "error", "cancel", "cancel twice"])
async def test_leaving_takes_a_moment_whatever_the_server_does(server_does: Script, how: str) -> None:
    async with serving(server_does) as server:
        began = 0.0
        inside = asyncio.Event()

        async def use() -> None:
            nonlocal began
            async with connect(server.url, PATIENT) as tunnel:
                for _ in range(20_000):  # more than a deaf server's socket takes
                    if tunnel.ended is not None or not tunnel.offer_frame(bytes(2000)):
                        break
                    await asyncio.sleep(0)
                began = time.monotonic()
                inside.set()
                if how == "error":
                    raise KeyError("of the program")
                if how.startswith("cancel"):
                    await asyncio.Event().wait()

        task = asyncio.ensure_future(use())
        await asyncio.wait_for(inside.wait(), 30)
        if how.startswith("cancel"):
            task.cancel()
        if how == "cancel twice":
            await asyncio.sleep(0.05)
            task.cancel()
        (end,) = await asyncio.gather(task, return_exceptions=True)
        assert time.monotonic() - began < (1.5 if how == "cancel twice" else 5)
        assert type(end) is {"return": type(None), "error": KeyError}.get(how, asyncio.CancelledError)


async def test_used_after_its_block_it_says_that_it_is_closed() -> None:
    async with serving(echo) as server:
        async with connect(server.url, PATIENT) as tunnel:
            pass
        for call in (tunnel.receive_frames(), tunnel.send_frame(FRAME), tunnel.ping()):
            with pytest.raises(ClosedHere, match="closed by this program"):
                await call
        with pytest.raises(ClosedHere):
            tunnel.offer_frame(FRAME)
        assert not tunnel.ended.retryable


async def test_cancelled_calls_lose_nothing() -> None:
    async with serving(echo) as server, connect(server.url, PATIENT) as tunnel:
        for _ in range(20):
            call = asyncio.ensure_future(tunnel.receive_frames())
            await asyncio.sleep(0)
            call.cancel()
            ping = asyncio.ensure_future(tunnel.ping())
            await asyncio.sleep(0)
            ping.cancel()
        await tunnel.send_frame(FRAME)
        assert await tunnel.receive_frames() == [FRAME]
        assert not tunnel._link._pings


async def test_raising_its_end_again_and_again_takes_no_memory() -> None:
    async with serving(says(close(1001))) as server, connect(server.url, PATIENT) as tunnel:
        await end_of(tunnel)
        for _ in range(100):
            with pytest.raises(TunnelClosed) as caught:
                tunnel.offer_frame(FRAME)
        depth, trace = 0, caught.tb
        while trace is not None:
            depth, trace = depth + 1, trace.tb_next
        assert depth < 10


async def test_server_sees_one_connection_with_what_the_protocol_asks() -> None:
    async with serving(echo) as server:
        async with connect(server.url, PATIENT):
            pass
        (peer,) = server.peers
        assert peer.request.startswith("GET /l2 HTTP/1.1\r\n")
        assert peer.headers("Sec-WebSocket-Protocol") == ["aero-l2-tunnel-v1"]
        assert peer.headers("Origin") == [f"http://127.0.0.1:{server.port}"]
        assert peer.headers("Sec-WebSocket-Extensions") == []
        assert peer.headers("User-Agent")[0].startswith("aero-l2/")


def test_it_works_on_uvloop_as_well() -> None:
    async def use() -> None:
        async with serving(echo, deaf) as server:
            async with connect(server.url, PATIENT) as tunnel:
                await tunnel.send_frame(FRAME)
                assert await tunnel.receive_frames() == [FRAME]
                assert await tunnel.ping() < 5
            with pytest.raises(TunnelLost, match="does not answer any more"):
                async with connect(server.url, Options(keepalive_s=0.2)) as tunnel:
                    await send_for_ever(tunnel)

    uvloop.run(asyncio.wait_for(use(), 30))
