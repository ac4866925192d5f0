"""Quotas and times of a tunnel, over real sockets with a socket pair for its TAP: exact to the byte."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs
from support.door import Stand, bare_tunnel, from_wire, settings, standing
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from aero_l2.auth.session_token import SessionClaims, mint_session_token
from aero_l2.session.lifecycle import Times
from aero_l2.session.options import TunnelOptions
from aero_l2.wire.receive import FRAGMENTS_PER_MESSAGE
from aero_l2.wire.tunnel import decode_error, encode

FRAME = bytes(range(60))
MESSAGE = encode(0, FRAME)
BYTES, RATE = "AERO_L2_MAX_BYTES_PER_CONNECTION", "AERO_L2_MAX_FRAMES_PER_SECOND"
HOUR = "AERO_L2_MAX_BYTES_PER_PRINCIPAL_HOUR"
IDLE, PING = "AERO_L2_IDLE_TIMEOUT_MS", "AERO_L2_PING_INTERVAL_MS"
SECRET = b"a session secret that only tests know"


async def left(client: ClientConnection) -> tuple[list[bytes], int | None, str | None]:
    """The messages until the end, close code and reason."""
    messages: list[bytes] = []
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionClosed):
            while True:
                message = await client.recv()
                assert isinstance(message, bytes)
                messages.append(message)
        await client.wait_closed()
    return messages, client.close_code, client.close_reason


def error(message: bytes) -> tuple[int | None, str]:
    assert message[:4] == b"\xa2\x03\x7f\x00"
    return decode_error(message[4:])


async def exceeded(client: ClientConnection, code: int, text: str) -> list[bytes]:
    """The tunnel ends with this ERROR and close; the messages before it."""
    *before, last = (ended := await left(client))[0]
    assert error(last) == (code, text)
    assert ended[1:] == (1008, text)
    return before


async def frames_delivered(stand: Stand, count: int) -> None:
    for _ in range(count):
        assert await from_wire(stand) == FRAME


def masked(message: bytes, opcode: int = 2) -> bytes:
    """A client's WebSocket frame with a mask of zeros."""
    return bytes([0x80 | opcode, 0x80 | len(message)]) + bytes(4) + message


async def to_the_end(stand: Stand, sent: bytes) -> bytes:
    """All that a tunnel answers to bytes that come in one read; the client closes when it is closed."""
    sock, loop, data = await bare_tunnel(stand), asyncio.get_running_loop(), b""
    await loop.sock_sendall(sock, sent)
    async with asyncio.timeout(20):
        while chunk := await loop.sock_recv(sock, 1 << 16):
            data += chunk
            if data[-40:].find(b"\x03\xf0") >= 0:
                await loop.sock_sendall(sock, masked(b"\x03\xf0", 8))
    sock.close()
    return data


def closing(code: int, text: str) -> bytes:
    """ERROR and close frame on the wire."""
    body = encode(0x7F, code.to_bytes(2, "big") + len(text).to_bytes(2, "big") + text.encode())
    return bytes([0x82, len(body)]) + body + bytes([0x88, len(text) + 2]) + b"\x03\xf0" + text.encode()


BYTES_OVER = closing(6, "byte quota exceeded")
RATE_OVER = closing(7, "frame rate quota exceeded")


# --- Bytes -----------------------------------------------------------------------------------------------


async def test_bytes_up_to_the_limit_pass_and_the_message_beyond_is_not_delivered() -> None:
    async with standing(**{BYTES: str(3 * 64)}) as stand:
        client = await stand.client()
        for _ in range(3):
            await client.send(MESSAGE)
        await frames_delivered(stand, 3)
        assert stand.door.active == 1
        await client.send(encode(0, b"")[:4])  # four bytes more
        assert await exceeded(client, 6, "byte quota exceeded") == []
        assert stand.value("l2_frames_rx_total") == 3
        assert stand.value("l2_sessions_closed_quota_bytes_total") == 1
        assert stand.value("aero_l2_sessions_closed_total", reason="byte_quota") == 1


async def test_both_ways_count_together() -> None:
    async with standing(**{BYTES: str(4 * 64)}) as stand:
        client = await stand.client()
        await client.send(MESSAGE)
        await frames_delivered(stand, 1)
        for _ in range(3):
            stand.opener.only.wire.send(FRAME)
            assert await client.recv() == MESSAGE
        stand.opener.only.wire.send(FRAME)
        assert await exceeded(client, 6, "byte quota exceeded") == []
        assert stand.value("l2_frames_tx_total") == 3
        assert stand.value("l2_frames_dropped_total") == 1


async def test_frames_for_the_guest_pass_up_to_the_one_that_is_too_much() -> None:
    """They come as one batch: those before it are sent, and ERROR and close behind them."""
    async with standing(**{BYTES: str(5 * 64 + 63)}) as stand:
        sock, loop = await bare_tunnel(stand), asyncio.get_running_loop()
        wire = stand.opener.only.wire
        for _ in range(9):
            wire.send(FRAME)
        data, expected = b"", masked(MESSAGE)[:1] + bytes([64]) + MESSAGE
        async with asyncio.timeout(20):
            while len(data) < 5 * 66 + len(BYTES_OVER):
                data += await loop.sock_recv(sock, 1 << 16)
        assert data == expected * 5 + BYTES_OVER
        sock.close()


async def test_one_read_is_judged_message_by_message() -> None:
    async with standing(**{BYTES: str(3 * 64 + 10)}) as stand:
        assert await to_the_end(stand, masked(MESSAGE) * 20) == BYTES_OVER
        assert stand.value("l2_frames_rx_total") == 3


@pytest.mark.parametrize(
    ("before", "cost"),
    [
        (masked(b"12345", 1), 5),
        (masked(b"12345", 9), 10),
        (masked(b"12345", 10), 5),
        (b"\x01\x82\0\0\0\0ab" + b"\x80\x81\0\0\0\0c", 3),
        (masked(encode(2, b"12345")), 9),
        (masked(encode(0x42, b"")), 4),
        (masked(encode(1, b"12345")), 18),
    ],
    ids=["text", "ping", "pong", "fragmented-text", "PONG", "unknown", "PING-and-its-PONG"],
)
async def test_everything_else_counts_too(before: bytes, cost: int) -> None:
    for limit, fits in ((cost + 64, 1), (cost + 63, 0)):
        async with standing(**{BYTES: str(limit)}) as stand:
            assert (await to_the_end(stand, before + masked(MESSAGE) * 2)).endswith(BYTES_OVER)
            assert stand.value("l2_frames_rx_total") == fits


async def test_ping_whose_answer_is_too_much_gets_none() -> None:
    async with standing(**{BYTES: "20"}) as stand:
        assert await to_the_end(stand, masked(encode(1, b"1234567")) + masked(MESSAGE)) == BYTES_OVER
        assert stand.value("l2_frames_rx_total") == 0


async def test_malformed_message_within_the_limit_is_a_malformed_message() -> None:
    async with standing(**{BYTES: "70"}) as stand:
        answer = await to_the_end(stand, masked(MESSAGE) + masked(b"\0\3\0\0") + masked(MESSAGE))
        assert answer == closing(1, "invalid magic: 0x00")
        assert stand.value("l2_sessions_closed_quota_bytes_total") == 0


async def test_malformed_message_beyond_the_limit_is_too_much() -> None:
    async with standing(**{BYTES: "67"}) as stand:
        assert await to_the_end(stand, masked(MESSAGE) + masked(b"\0\3\0\0")) == BYTES_OVER


async def test_servers_pings_cost_and_a_close_is_free() -> None:
    """The PING at the start is 12 bytes, so one FRAME of 64 fits into 76 and none into 75."""
    for limit, fits in ((76, 1), (75, 0)):
        async with standing(**{BYTES: str(limit), PING: "3600000"}) as stand:
            client = await stand.client()
            assert len(await client.recv()) == 12
            await client.send(MESSAGE)
            if fits:
                await frames_delivered(stand, 1)
                await client.send(b"\xa2\x03\x42\x00")
            await exceeded(client, 6, "byte quota exceeded")


async def test_ping_of_ours_that_is_too_much_ends_the_tunnel_instead() -> None:
    async with standing(**{BYTES: "11", PING: "1000"}) as stand:
        client = await stand.client()
        assert await exceeded(client, 6, "byte quota exceeded") == []


async def test_raw_frames_cost_what_they_are_and_close_without_an_error() -> None:
    async with standing(AERO_L2_RAW_FRAMES="1", **{BYTES: str(3 * 60)}) as stand:
        client = await stand.raw_client()
        for _ in range(2):
            await client.send(FRAME)
        await frames_delivered(stand, 2)
        stand.opener.only.wire.send(FRAME)
        assert await client.recv() == FRAME
        await client.send(b"x")
        assert await left(client) == ([], 1008, "byte quota exceeded")


# --- Messages in a second --------------------------------------------------------------------------------


async def test_messages_beyond_the_rate_are_not_delivered_and_those_before_are() -> None:
    async with standing(**{RATE: "5"}) as stand:
        assert await to_the_end(stand, masked(MESSAGE) * 9) == RATE_OVER
        assert stand.value("l2_frames_rx_total") == 5
        assert stand.value("l2_sessions_closed_quota_fps_total") == 1


async def test_every_inbound_message_counts_for_the_rate() -> None:
    kinds = (b"text", 1), (b"", 9), (b"", 10), (encode(2, b""), 2), (encode(1, b""), 2)
    others = b"".join(masked(*kind) for kind in kinds)
    async with standing(**{RATE: "6"}) as stand:
        answer = await to_the_end(stand, others + masked(MESSAGE) * 2)
        assert answer.endswith(RATE_OVER)
        assert stand.value("l2_frames_rx_total") == 1


async def test_fragments_are_one_message() -> None:
    pieces = b"\x02\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 5 + b"\x80" + masked(MESSAGE)[1:]
    async with standing(**{RATE: "2"}) as stand:
        assert await to_the_end(stand, pieces * 3) == RATE_OVER
        assert stand.value("l2_frames_rx_total") == 2


@pytest.mark.parametrize("text", [False, True])
async def test_fragments_without_end_are_limited_too(text: bool) -> None:
    """None of them ends a message; what they cost the server is the same."""
    first, more = b"\x01\x80\0\0\0\0" if text else b"\x02\x80\0\0\0\0", b"\x00\x80\0\0\0\0"
    async with standing(**{RATE: "2"}) as stand:
        assert await to_the_end(stand, first + more * (3 * FRAGMENTS_PER_MESSAGE - 1)) == RATE_OVER
        assert stand.value("l2_frames_rx_total") == 0


async def test_rate_counts_anew_each_second_and_never_what_is_sent() -> None:
    async with standing(**{RATE: "10"}) as stand:
        client, begun = await stand.client(), time.monotonic()
        for second in range(2):
            await stand.until(lambda: time.monotonic() > begun + 1.05 * second, "another second")  # noqa: B023
            for _ in range(10):
                await client.send(MESSAGE)
            await frames_delivered(stand, 10)
            for _ in range(30):
                stand.opener.only.wire.send(FRAME)
                await client.recv()
        assert stand.door.active == 1
        await client.close()


# --- An hour of a session --------------------------------------------------------------------------------


@asynccontextmanager
async def sessions(limit: int, **more: str) -> AsyncIterator[Stand]:
    secret = {"AERO_L2_SESSION_SECRET": SECRET.decode(), "AERO_L2_AUTH_MODE": "session"}
    async with standing(**secret, **{HOUR: str(limit)}, **more) as stand:
        yield stand


async def client_of(stand: Stand, sid: str) -> ClientConnection:
    token = mint_session_token(SessionClaims(sid, time.time() + 600), SECRET)
    return await connect(
        f"ws://127.0.0.1:{stand.door.port}/l2",
        subprotocols=[Subprotocol("aero-l2-tunnel-v1")],
        additional_headers={"Cookie": f"aero_session={token}"},
        compression=None,
        proxy=None,
        ping_interval=None,
    )


async def test_tunnels_of_one_session_share_an_hour_and_end_together() -> None:
    async with sessions(4 * 64) as stand:
        first, second = await client_of(stand, "me"), await client_of(stand, "me")
        other = await client_of(stand, "you")
        for client in (first, second):
            await client.send(MESSAGE)
            await client.send(MESSAGE)
        await stand.until(lambda: stand.value("l2_frames_rx_total") == 4, "four frames")
        await first.send(MESSAGE)
        for client in (first, second):
            assert await exceeded(client, 6, "hourly byte quota exceeded") == []
        await other.send(MESSAGE)
        await stand.until(lambda: stand.value("l2_frames_rx_total") == 5, "the other's frame")
        assert stand.value("l2_sessions_closed_quota_bytes_total") == 2
        assert stand.value("aero_l2_sessions_closed_total", reason="hourly_byte_quota") == 2
        await other.close()


async def test_upgrade_of_a_session_that_used_its_hour_is_refused_and_told_when_to_return() -> None:
    async with sessions(100) as stand:
        client = await client_of(stand, "me")
        await client.send(MESSAGE)
        await client.send(MESSAGE)
        await exceeded(client, 6, "hourly byte quota exceeded")
        with pytest.raises(InvalidStatus) as refused, capture_logs() as lines:
            await client_of(stand, "me")
        response = refused.value.response
        [line] = [line for line in lines if line["event"] == "upgrade refused"]
        assert (line["principal"], line["limit"]) == ("me", HOUR)
        assert str(line["retry_after_s"]) == response.headers["Retry-After"]
        assert (response.status_code, response.body) == (429, b"quota_bytes: hourly byte quota exceeded")
        assert 3500 < int(response.headers["Retry-After"]) <= 3660
        assert stand.value("l2_upgrade_reject_quota_bytes_total") == 1
        assert stand.value("l2_upgrade_rejected_total") == 1
        await (await client_of(stand, "you")).close()


async def test_hour_goes_on_over_tunnels_and_a_reload_changes_its_limit() -> None:
    async with sessions(2 * 64) as stand:
        for _ in range(2):
            client = await client_of(stand, "me")
            await client.send(MESSAGE)
            await frames_delivered(stand, 1)
            await client.close()
            await stand.until(lambda: stand.door.active == 0, "released")
        with pytest.raises(InvalidStatus):
            await client_of(stand, "me")
        stand.door.tunnels.hours.limit = 3 * 64
        client = await client_of(stand, "me")
        await client.send(MESSAGE)
        await frames_delivered(stand, 1)
        await client.send(MESSAGE)
        await exceeded(client, 6, "hourly byte quota exceeded")


async def test_credential_that_names_nobody_has_no_hour() -> None:
    async with standing(**{HOUR: "10"}) as stand:
        client = await stand.client()
        await client.send(MESSAGE)
        await frames_delivered(stand, 1)
        await client.close()
        assert len(stand.door.tunnels.hours) == 0


# --- Times -----------------------------------------------------------------------------------------------


async def test_silent_tunnel_is_closed_without_an_error_message() -> None:
    async with standing(**{IDLE: "300"}) as stand:
        client = await stand.client()
        begun = time.monotonic()
        assert await left(client) == ([], 1008, "idle timeout")
        assert time.monotonic() - begun > 0.25
        assert stand.value("aero_l2_idle_timeouts_total") == 1


@pytest.mark.parametrize(
    "message",
    [MESSAGE, b"\xa2\x03\x42\x00", encode(2, b""), "text", None],
    ids=["frame", "unknown", "PONG", "text", "ping"],
)
async def test_any_message_of_the_client_keeps_it_open(message: bytes | str | None) -> None:
    async with standing(**{IDLE: "1000"}) as stand:
        client, begun = await stand.client(), time.monotonic()
        while time.monotonic() < begun + 2.5:
            if message is None:
                await client.ping()
            else:
                await client.send(message)
            await asyncio.sleep(0.1)
        assert stand.door.active == 1
        assert await left(client) == ([], 1008, "idle timeout")


async def test_neither_frames_nor_pings_of_ours_keep_a_silent_client_open() -> None:
    async with standing(**{IDLE: "700", PING: "100"}) as stand:
        sock, loop, data = await bare_tunnel(stand), asyncio.get_running_loop(), b""
        tick = asyncio.create_task(tap_ticks(stand))
        async with asyncio.timeout(20):
            while b"idle timeout" not in data:
                data += await loop.sock_recv(sock, 1 << 16)
        tick.cancel()
        assert encode(1, (1).to_bytes(8, "big")) in data
        assert MESSAGE in data
        sock.close()


async def tap_ticks(stand: Stand) -> None:
    with contextlib.suppress(OSError):
        while True:
            stand.opener.only.wire.send(FRAME)
            await asyncio.sleep(0.05)


async def test_pongs_of_the_websocket_do_not_keep_a_raw_tunnel_open() -> None:
    """They are the answers of the client's library to the server's own pings."""
    options = {"AERO_L2_RAW_FRAMES": "1", IDLE: "700"}
    async with standing(ping_interval_s=0.1, **options) as stand:
        client = await stand.raw_client()
        assert await left(client) == ([], 1008, "idle timeout")


async def test_tunnel_ends_when_its_time_is_over() -> None:
    async with standing(AERO_L2_MAX_SESSION_SECONDS="1") as stand:
        client, begun = await stand.client(), time.monotonic()
        talking = asyncio.create_task(talk(client))
        assert await left(client) == ([], 1008, "session time limit reached")
        assert time.monotonic() - begun > 0.9
        assert stand.value("aero_l2_sessions_closed_total", reason="session_too_long") == 1
        talking.cancel()


async def talk(client: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await client.send(MESSAGE)
            await asyncio.sleep(0.05)


async def test_nat_process_that_never_comes_ends_the_tunnel() -> None:
    async with standing() as stand:
        stand.opener.nat = False
        stand.door.tunnels.options = TunnelOptions(times=Times(nat_wait_s=0.3))
        client = await stand.client()
        with capture_logs() as lines:
            assert await left(client) == ([], 1011, "tunnel failed")
        assert any("slirp4netns" in line.get("text", "") for line in lines)


# --- PINGs -----------------------------------------------------------------------------------------------


async def test_round_trips_are_measured_one_ping_at_a_time() -> None:
    async with standing(**{PING: "100"}) as stand:
        client = await stand.client()
        for number in range(1, 6):
            ping = await asyncio.wait_for(client.recv(), 10)
            assert ping == encode(1, number.to_bytes(8, "big"))
            await client.send(encode(2, ping[4:]))
            await client.send(encode(2, ping[4:]))
        await stand.until(lambda: stand.value("l2_ping_rtt_ms_count") == 5, "five round trips")
        assert stand.value("l2_ping_rtt_ms_sum") < 5 * 10_000
        await client.close()


async def test_ping_without_an_answer_is_followed_by_one_after_a_second() -> None:
    async with standing(**{PING: "50"}) as stand:
        client = await stand.client()
        assert await asyncio.wait_for(client.recv(), 10) == encode(1, (1).to_bytes(8, "big"))
        begun = time.monotonic()
        await client.send(encode(2, b"another"))
        assert await asyncio.wait_for(client.recv(), 10) == encode(1, (2).to_bytes(8, "big"))
        assert time.monotonic() - begun > 0.9
        assert stand.value("l2_ping_rtt_ms_count") == 0
        await client.close()


async def test_raw_tunnel_gets_no_pings_of_the_protocol() -> None:
    async with standing(AERO_L2_RAW_FRAMES="1", **{PING: "20", IDLE: "400"}) as stand:
        client = await stand.raw_client()
        assert await left(client) == ([], 1008, "idle timeout")


async def test_client_that_does_not_read_is_sent_no_pile_of_pings() -> None:
    async with standing(**{PING: "10", "AERO_L2_SEND_STALL_TIMEOUT_MS": "0"}) as stand:
        sock = await bare_tunnel(stand, receive_buffer=4096)
        [tunnel] = stand.door.tunnels.live
        wire = stand.opener.only.wire
        async with asyncio.timeout(30):
            while not tunnel._lan.pump.is_paused:
                with contextlib.suppress(BlockingIOError):
                    wire.send(bytes(1514))
                await asyncio.sleep(0)
        written, pings = tunnel.link.buffered(), tunnel.life._pings
        assert pings is not None
        due = pings._id + 2
        await stand.until(lambda: pings._id >= due, "two PINGs were due")
        assert tunnel.link.buffered() <= written
        sock.close()


# --- Settings --------------------------------------------------------------------------------------------


async def test_reload_changes_the_limits_of_new_tunnels_and_not_of_open_ones() -> None:
    async with standing() as stand:
        old = await stand.client()
        stand.door.apply(settings(**{BYTES: "10", PING: "60000"}))
        new = await stand.client()
        assert await exceeded(new, 6, "byte quota exceeded") == []
        await old.send(MESSAGE)
        await frames_delivered(stand, 1)
        await old.close()


# --- The log ---------------------------------------------------------------------------------------------


async def test_log_says_who_why_how_long_and_how_much() -> None:
    async with standing(**{BYTES: str(4 * 64)}) as stand:
        began = time.monotonic()
        with capture_logs() as lines:
            client = await stand.client()
            for _ in range(3):
                await client.send(MESSAGE)
            await frames_delivered(stand, 3)
            stand.opener.only.wire.send(FRAME)
            await client.recv()
            await client.send(encode(0, bytes(13)))
            await exceeded(client, 6, "byte quota exceeded")
            await stand.until(lambda: stand.door.active == 0, "released")
        [line] = [line for line in lines if line["event"] == "tunnel closed"]
        assert line["client"] == "127.0.0.1"
        assert line["peer"].startswith("127.0.0.1:")
        assert (line["reason"], line["text"]) == ("byte_quota", "byte quota exceeded")
        assert 0 <= line["seconds"] <= time.monotonic() - began + 0.001
        assert (line["frames_rx"], line["bytes_rx"]) == (3, 180)
        assert (line["frames_tx"], line["bytes_tx"], line["frames_dropped"]) == (1, 60, 0)
        assert (line["used"], line["limit"]) == (4 * 64, 4 * 64)


async def test_client_that_leaves_during_set_up_has_a_line_too() -> None:
    async with standing() as stand:
        stand.opener.hold = asyncio.Event()
        with capture_logs() as lines:
            _, writer = await stand.raw()
            writer.write(
                b"GET /l2 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Protocol: aero-l2-tunnel-v1\r\n\r\n"
            )
            await asyncio.wait_for(stand.opener.entered.wait(), 10)
            writer.transport.abort()
            await stand.until(lambda: stand.door.active == 0, "released")
        assert [line["event"] for line in lines] == ["tunnel not opened"]
        assert lines[0]["client"] == "127.0.0.1"
        assert re.fullmatch(
            r"the client left after \d+\.\d s, while its tunnel was being made", lines[0]["text"]
        )
        assert 0 <= lines[0]["seconds"] < 10
        assert stand.value("l2_sessions_total") == 0
