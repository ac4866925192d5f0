"""A tunnel of raw frames over real sockets, its TAP played by a socket pair, and its pings."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import AsyncIterator

import pytest
from support.door import UPGRADE, Stand, bare_tunnel, from_wire, standing
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from aero_l2 import tasks
from aero_l2.session.closing import CLOSINGS, Reason

FRAME = bytes(range(60))
INTERVAL_S = 0.1
PING = b"\x89\x00"
PONG = 0x8A
bare = functools.partial(bare_tunnel, path="/v86", more="")
SILENCE = b"\x88\x14\x03\xf0no answer to pings"


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async with standing(AERO_L2_RAW_FRAMES="1", AERO_L2_SEND_STALL_TIMEOUT_MS="400") as it:
        yield it
    assert not tasks.running()


@pytest.fixture
async def pinging() -> AsyncIterator[Stand]:
    async with standing(ping_interval_s=INTERVAL_S, AERO_L2_RAW_FRAMES="1") as it:
        yield it
    assert not tasks.running()


def masked(payload: bytes, first: int = 0x82) -> bytes:
    """A client's WebSocket frame with a mask of zeros."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else bytes([0xFE]) + size.to_bytes(2, "big")
    return bytes([first]) + length + bytes(4) + payload


async def to_the_end(sock: socket.socket) -> bytes:
    """All that comes until the connection ends."""
    data, loop = b"", asyncio.get_running_loop()
    async with asyncio.timeout(10):
        while chunk := await loop.sock_recv(sock, 1 << 16):
            data += chunk
    sock.close()
    return data


async def left(client: ClientConnection) -> tuple[list[bytes | str], int | None, str | None]:
    """The messages until the end, close code and reason."""
    messages: list[bytes | str] = []
    async with asyncio.timeout(10):
        try:
            while True:
                messages.append(await client.recv())
        except ConnectionClosed:
            return messages, client.close_code, client.close_reason


# --- Frames ----------------------------------------------------------------------------------------------


async def test_message_is_a_frame_both_ways(stand: Stand) -> None:
    client = await stand.raw_client()
    assert client.subprotocol is None
    for size in (14, 60, 125, 126, 1514, 2048):
        await client.send(b"\x5a" * size)
        assert await from_wire(stand) == b"\x5a" * size
        stand.opener.only.wire.send(b"\xa5" * size)
        assert await client.recv() == b"\xa5" * size
    await client.close()
    total = 14 + 60 + 125 + 126 + 1514 + 2048
    assert stand.value("l2_frames_rx_total") == stand.value("l2_frames_tx_total") == 6
    assert stand.value("l2_bytes_rx_total") == stand.value("l2_bytes_tx_total") == total
    assert stand.value("l2_frames_dropped_total") == 0


async def test_frame_that_looks_like_a_message_of_the_tunnel_protocol_is_a_frame(stand: Stand) -> None:
    client = await stand.raw_client()
    for start in (b"\xa2\x03\x00\x00", b"\xa2\x03\x01\x00", b"\xa2\x03\x7f\x00", b"\x00\x00\x00\x00"):
        await client.send(start + FRAME)
        assert await from_wire(stand) == start + FRAME
    await client.close()
    assert stand.value("l2_frames_tx_total") == 0


async def test_frames_sent_before_the_101_are_kept(stand: Stand) -> None:
    reader, writer = await stand.raw()
    writer.write(UPGRADE.format(path="/v86", more="").encode() + masked(FRAME))
    await reader.readuntil(b"\r\n\r\n")
    assert await from_wire(stand) == FRAME
    writer.close()


@pytest.mark.parametrize("size", [0, 1, 13])
async def test_runts_are_dropped_and_counted(stand: Stand, size: int) -> None:
    client = await stand.raw_client()
    await client.send(bytes(size))
    await client.send(FRAME)
    assert await from_wire(stand) == FRAME
    await client.close()
    assert stand.value("l2_frames_dropped_total") == 1


async def test_text_is_ignored_and_fragments_are_one_frame(stand: Stand) -> None:
    client = await stand.raw_client()
    await client.send("text")
    await client.send(["te", "xt"])
    await client.send([FRAME[:10], b"", FRAME[10:]])
    assert await from_wire(stand) == FRAME
    await client.close()
    assert stand.value("l2_frames_rx_total") == 1


@pytest.mark.parametrize(("limit", "size"), [("2048", 2049), ("100", 101), ("2048", 500_000)])
async def test_message_over_the_frame_limit_is_closed_with_1009(limit: str, size: int) -> None:
    async with standing(AERO_L2_RAW_FRAMES="1", AERO_L2_MAX_FRAME_PAYLOAD=limit) as stand:
        client = await stand.raw_client()
        await client.send(bytes(int(limit)))
        assert len(await from_wire(stand)) == int(limit)
        await client.send(bytes(size))
        messages, code, reason = await left(client)
        assert (messages, code) == ([], 1009)
        assert reason


async def test_frame_over_the_limit_from_the_tap_is_dropped(stand: Stand) -> None:
    client = await stand.raw_client()
    stand.opener.only.wire.send(bytes(2049))
    stand.opener.only.wire.send(FRAME)
    assert await client.recv() == FRAME
    await client.close()
    assert stand.value("l2_frames_dropped_total") == 1


async def test_websocket_ping_is_answered(stand: Stand) -> None:
    client = await stand.raw_client()
    await asyncio.wait_for(await client.ping(b"hello"), 5)
    await client.close()


async def test_tiny_messages_of_one_client_do_not_starve_another(stand: Stand) -> None:
    loud = await bare(stand)
    flooding = (
        masked(b"") + masked(b"x") + masked(b"text", 0x81) + masked(b"", 0x02) + masked(b"", 0x80)
    ) * 5000

    async def shout() -> None:
        while True:
            await asyncio.get_running_loop().sock_sendall(loud, flooding)

    shouting = asyncio.create_task(shout())
    client = await stand.raw_client()
    wire = stand.opener.live[2].wire
    for number in range(20):
        await client.send(bytes([number]) * 60)
        received = asyncio.get_running_loop().sock_recv(wire, 4096)
        assert await asyncio.wait_for(received, 2) == bytes([number]) * 60
    shouting.cancel()
    await client.close()
    loud.close()


# --- Ends ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [reason for reason in Reason if CLOSINGS[reason].close_code])
async def test_tunnel_is_closed_in_the_promised_words_and_without_an_error_message(
    stand: Stand, reason: Reason
) -> None:
    client = await stand.raw_client()
    stand.door.tunnels.live[0].close(reason)
    assert await left(client) == ([], CLOSINGS[reason].close_code, CLOSINGS[reason].text)


async def test_client_that_ends_its_side_leaves_nothing(stand: Stand) -> None:
    sock = await bare(stand)
    sock.shutdown(socket.SHUT_WR)
    assert await to_the_end(sock) == b""
    await stand.until(lambda: stand.door.active == 0, "tunnel released")


async def test_client_that_takes_nothing_is_closed_without_an_error_message(stand: Stand) -> None:
    sock = await bare(stand, receive_buffer=4096)
    frame, wire, taken = b"\xa5" * 1514, stand.opener.only.wire, 0
    while not stand.value("l2_sessions_closed_backpressure_total"):
        try:
            wire.send(frame)
            taken += 1
        except OSError:
            await asyncio.sleep(0.005)
    data, loop = b"", asyncio.get_running_loop()
    close = b"\x88\x21\x03\xf0outbound websocket backpressure"
    async with asyncio.timeout(10):
        while not data.endswith(close):
            data += await loop.sock_recv(sock, 1 << 20)
    await loop.sock_sendall(sock, masked(b"\x03\xf0", 0x88))
    frames, rest = divmod(len(data) - len(close), len(frame) + 4)
    assert (rest, data[: -len(close)]) == (0, (b"\x82\x7e\x05\xea" + frame) * frames)
    assert 0 < frames <= taken
    sock.close()


async def test_shutdown_and_a_lost_segment_close_with_their_codes(stand: Stand) -> None:
    first, second = await stand.raw_client(), await stand.raw_client()
    stand.opener.live[1].failed.set_result("slirp4netns died of signal 9")
    assert await left(first) == ([], 1011, "tunnel failed")
    stopping = asyncio.create_task(stand.door.shutdown())
    assert await left(second) == ([], 1001, "shutting down")
    await stopping


# --- Pings -----------------------------------------------------------------------------------------------


async def pinged(sock: socket.socket) -> None:
    """Wait for a ping."""
    assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 2), 5) == PING


async def test_client_that_answers_pings_stays_however_little_it_says(pinging: Stand) -> None:
    sock, loop = await bare(pinging), asyncio.get_running_loop()
    for _ in range(8):
        await pinged(sock)
        await loop.sock_sendall(sock, masked(b"", PONG))
    await loop.sock_sendall(sock, masked(FRAME))
    assert await from_wire(pinging) == FRAME
    sock.close()


async def test_silent_client_is_closed_after_three_pings_and_leaves_nothing(pinging: Stand) -> None:
    sock = await bare(pinging)
    assert await to_the_end(sock) == PING * 3 + SILENCE
    await pinging.until(lambda: pinging.door.active == 0, "tunnel released")
    assert not pinging.opener.live


async def test_any_byte_is_an_answer(pinging: Stand) -> None:
    """A frame in small pieces: no pong, for long no message, and yet somebody is there."""
    sock, loop = await bare(pinging), asyncio.get_running_loop()
    data = masked(FRAME[:14])
    for at in range(0, len(data), 5):
        await pinged(sock)
        await loop.sock_sendall(sock, data[at : at + 5])
    assert await from_wire(pinging) == FRAME[:14]
    assert (await to_the_end(sock)).endswith(PING * 2 + SILENCE)


async def test_two_answers_missed_are_made_good_by_one(pinging: Stand) -> None:
    sock, loop = await bare(pinging), asyncio.get_running_loop()
    for _ in range(3):
        await pinged(sock)
        await pinged(sock)
        await loop.sock_sendall(sock, masked(b"", PONG))
    assert pinging.door.active == 1
    sock.close()


async def test_tunnel_protocol_gets_no_websocket_pings(pinging: Stand) -> None:
    quiet, other = await bare_tunnel(pinging), await bare(pinging)
    for _ in range(3):
        await pinged(other)
    with pytest.raises(BlockingIOError):
        quiet.recv(100)
    assert pinging.door.active == 2
    quiet.close()
    other.close()


async def test_ping_that_nobody_takes_is_no_stall() -> None:
    """What waits then is a question and no data: three of them decide, not the clock of backpressure."""
    options = {"AERO_L2_RAW_FRAMES": "1", "AERO_L2_SEND_STALL_TIMEOUT_MS": "50"}
    async with standing(ping_interval_s=INTERVAL_S, **options) as stand:
        sock = await bare(stand)
        link = stand.door.tunnels.live[0].link
        link.outstanding = lambda: 2  # type: ignore[method-assign]
        assert (await to_the_end(sock)).endswith(SILENCE)
        assert stand.value("l2_sessions_closed_backpressure_total") == 0
