"""A tunnel over real sockets, its TAP played by a socket pair: messages, ends, bounds."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator

import pytest
from support.door import OFFER, UPGRADE, Stand, bare_tunnel, from_wire, standing
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from aero_l2 import tasks
from aero_l2.session.link import MAX_DISCARDED
from aero_l2.wire.tunnel import decode_error, encode

FRAME = bytes(range(60))
MESSAGE = b"\xa2\x03\x00\x00" + FRAME


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async with standing(AERO_L2_SEND_STALL_TIMEOUT_MS="400") as it:
        yield it
    assert not tasks.running()


async def closed(client: ClientConnection) -> tuple[int | None, str | None]:
    """Read to the end: close code and reason."""
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionClosed):
            async for _ in client:
                pass
        await client.wait_closed()
    return client.close_code, client.close_reason


async def flood(stand: Stand, frame: bytes, seconds: float) -> int:
    """Offer frames to the tunnel as fast as its queue takes them; how many it took."""
    loop, wire, taken = asyncio.get_running_loop(), stand.opener.only.wire, 0
    deadline = loop.time() + seconds
    while loop.time() < deadline:
        try:
            wire.send(frame)
            taken += 1
        except BlockingIOError:
            await asyncio.sleep(0.005)
        except OSError as gone:
            assert gone.errno in (errno.EBADF, errno.EPIPE)  # noqa: PT017
            break
        if taken % 64 == 0:
            await asyncio.sleep(0)
    return taken


def masked(message: bytes, opcode: int = 2) -> bytes:
    """A client's WebSocket frame with a mask of zeros."""
    size = len(message)
    length = bytes([0x80 | size]) if size < 126 else bytes([0xFE]) + size.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + length + bytes(4) + message


async def test_frames_pass_both_ways(stand: Stand) -> None:
    async with await stand.client() as client:
        await client.send(MESSAGE)
        assert await from_wire(stand) == FRAME
        for size in (14, 60, 125, 1514, 2048):
            stand.opener.only.wire.send(bytes(size))
            assert await client.recv() == b"\xa2\x03\x00\x00" + bytes(size)
        assert stand.value("l2_sessions_active") == 1
    assert stand.value("l2_sessions_total") == 1
    assert stand.value("l2_frames_rx_total") == 1
    assert stand.value("l2_bytes_rx_total") == 60
    assert stand.value("l2_frames_tx_total") == 5
    assert stand.value("l2_bytes_tx_total") == 14 + 60 + 125 + 1514 + 2048
    assert stand.value("l2_frames_dropped_total") == 0


async def test_frame_right_behind_the_handshake_is_kept(stand: Stand) -> None:
    reader, writer = await stand.raw()
    writer.write(UPGRADE.format(path="/l2", more=OFFER).encode() + masked(MESSAGE))
    await reader.readuntil(b"\r\n\r\n")
    assert await from_wire(stand) == FRAME
    writer.close()


async def test_ping_is_answered_with_its_payload(stand: Stand) -> None:
    async with await stand.client() as client:
        for payload in (b"", b"x", bytes(256)):
            await client.send(encode(1, payload))
            assert await client.recv() == encode(2, payload)


async def test_websocket_ping_is_answered(stand: Stand) -> None:
    async with await stand.client() as client:
        await asyncio.wait_for(await client.ping(b"hello"), 5)


async def test_what_asks_for_nothing_is_ignored(stand: Stand) -> None:
    async with await stand.client() as client:
        for message in ("text", encode(2, b"x"), encode(0x7F, b"x"), encode(0x42, b"x")):
            await client.send(message)
        await client.send([MESSAGE[:10], MESSAGE[10:]])
        assert await from_wire(stand) == FRAME


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (b"\xa2\x03", "message too short: 2 < 4"),
        (b"\x00\x03\x00\x00", "invalid magic: 0x00"),
        (b"\xa2\x02\x00\x00", "unsupported version: 0x02"),
        (encode(1, bytes(257)), "payload too large: 257 > 256"),
    ],
)
async def test_malformed_message_gets_error_and_close(stand: Stand, message: bytes, text: str) -> None:
    async with await stand.client() as client:
        await client.send(MESSAGE)
        await client.send(message)
        await client.send(MESSAGE)
        error = await client.recv()
        assert isinstance(error, bytes)
        assert error[:4] == b"\xa2\x03\x7f\x00"
        assert decode_error(error[4:]) == (1, text)
        assert await closed(client) == (1008, text)
        assert stand.value("l2_frames_rx_total") == 1


async def test_malformed_message_and_close_in_one_read_get_error_and_1008(stand: Stand) -> None:
    sock = await bare_tunnel(stand)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, masked(b"\x00\x03\x00\x00") + masked(b"\x03\xe8", opcode=8))
    answer = b""
    while chunk := await asyncio.wait_for(loop.sock_recv(sock, 4096), 5):
        answer += chunk
    text = b"invalid magic: 0x00"
    assert answer == b"\x82\x1b\xa2\x03\x7f\0\0\1\0\x13" + text + b"\x88\x15\x03\xf0" + text
    sock.close()


async def test_message_over_the_cap_is_closed_with_1009(stand: Stand) -> None:
    async with await stand.client() as client:
        await client.send(bytes(500_000))
        assert (await closed(client))[0] == 1009


async def test_websocket_violation_is_closed_with_1002(stand: Stand) -> None:
    sock = await bare_tunnel(stand)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, b"\x82\x01x")
    assert await loop.sock_recv(sock, 100) == b"\x88\x13\x03\xeaincorrect masking"
    assert await loop.sock_recv(sock, 100) == b""
    sock.close()


async def test_flood_behind_a_violation_is_bounded_and_our_close_frame_arrives(stand: Stand) -> None:
    sock = await bare_tunnel(stand)
    loop = asyncio.get_running_loop()
    link = stand.door.tunnels.live[0].link
    read = 0
    received = link.data_received

    def counting(data: bytes) -> None:
        nonlocal read
        read += len(data)
        received(data)

    link.data_received = counting  # type: ignore[method-assign]
    await loop.sock_sendall(sock, b"\x83\x80\0\0\0\0")
    flooding = asyncio.create_task(loop.sock_sendall(sock, bytes(64 << 20)))
    answer = await asyncio.wait_for(loop.sock_recv(sock, 100), 5)
    assert answer == b"\x88\x10\x03\xeainvalid opcode"
    await stand.until(lambda: stand.door.active == 0, "tunnel released")
    assert read <= MAX_DISCARDED + 2 * (1 << 18)  # the read with the violation and the one over the limit
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(flooding, 5)
    sock.close()


async def test_close_of_the_client_is_echoed(stand: Stand) -> None:
    client = await stand.client()
    await client.close(1000, "done")
    assert (client.close_code, client.close_reason) == (1000, "done")
    await stand.until(lambda: stand.door.active == 0, "tunnel released")


async def test_client_that_is_gone_leaves_nothing(stand: Stand) -> None:
    sock = await bare_tunnel(stand)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()
    await stand.until(lambda: stand.door.active == 0, "tunnel released")


async def test_lost_segment_closes_with_1011_and_says_why(
    stand: Stand, capsys: pytest.CaptureFixture[str]
) -> None:
    async with await stand.client() as client, await stand.client() as other:
        stand.opener.live[1].failed.set_result("slirp4netns died of signal 9")
        assert await closed(client) == (1011, "tunnel failed")
        await other.send(MESSAGE)
        assert await asyncio.get_running_loop().sock_recv(stand.opener.live[2].wire, 100) == FRAME
    assert "slirp4netns died of signal 9" in capsys.readouterr().out


async def test_tap_that_ends_closes_with_1011(stand: Stand) -> None:
    async with await stand.client() as client:
        stand.opener.only.wire.close()
        assert await closed(client) == (1011, "tunnel failed")


async def test_full_tap_drops_and_counts(stand: Stand) -> None:
    async with await stand.client() as client:
        for _ in range(2000):
            await client.send(MESSAGE)
        await client.send(encode(1, b"done"))
        assert await client.recv() == encode(2, b"done")
        assert stand.value("l2_frames_rx_total") == 2000
        assert stand.value("l2_frames_dropped_total") > 0


@pytest.mark.parametrize("size", [0, 1, 13])
async def test_runts_are_dropped(stand: Stand, size: int) -> None:
    async with await stand.client() as client:
        await client.send(encode(0, bytes(size)))
        await client.send(MESSAGE)
        assert await from_wire(stand) == FRAME
    assert stand.value("l2_frames_dropped_total") == 1


async def test_slow_reader_keeps_memory_bounded_and_is_not_closed(stand: Stand) -> None:
    sock = await bare_tunnel(stand, receive_buffer=4096)
    loop = asyncio.get_running_loop()
    flooding = asyncio.create_task(flood(stand, bytes(1514), 1.5))
    got = 0
    while not flooding.done():
        got += len(await loop.sock_recv(sock, 4096))
        await asyncio.sleep(0.02)
    link = stand.door.tunnels.live[0].link
    assert link.outstanding() < 8_000_000  # the kernel's send buffer; ours adds at most this:
    assert link.buffered() <= 128 * 1024 + 64 * (2048 + 8)
    assert stand.door.active == 1
    assert got > 0
    sock.close()


async def test_client_that_takes_nothing_is_closed(stand: Stand) -> None:
    sock = await bare_tunnel(stand, receive_buffer=4096)
    await flood(stand, bytes(1514), 3)
    await stand.until(lambda: stand.door.active == 0, "tunnel released")
    assert stand.value("l2_sessions_closed_backpressure_total") == 1
    sock.close()


async def test_stalled_client_that_wakes_up_reads_why(stand: Stand) -> None:
    sock = await bare_tunnel(stand, receive_buffer=4096)
    flooding = asyncio.create_task(flood(stand, bytes(1514), 5))
    await stand.until(lambda: stand.value("l2_sessions_closed_backpressure_total") == 1, "stalled")
    data, loop = b"", asyncio.get_running_loop()
    while chunk := await loop.sock_recv(sock, 1 << 20):
        data = (data + chunk)[-300:]
        if data.endswith(b"outbound websocket backpressure") and b"\x88\x21\x03\xf0" in data:
            await loop.sock_sendall(sock, masked(b"\x03\xf0", 8))
    assert encode(0x7F, b"\0\x09\0\x1foutbound websocket backpressure") in data
    flooding.cancel()
    sock.close()


@pytest.mark.parametrize("ping", [masked(encode(1, bytes(100))), masked(bytes(100), 9)], ids=["ours", "ws"])
async def test_ping_flood_without_reading_is_held_back(ping: bytes) -> None:
    async with standing(AERO_L2_SEND_STALL_TIMEOUT_MS="60000") as stand:
        sock = await bare_tunnel(stand, receive_buffer=4096)
        flooding = ping * 500
        sent, held = 0, False
        while not held and sent < 50_000_000:
            try:
                await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(sock, flooding), 1)
                sent += len(flooding)
            except TimeoutError:
                held = True
        assert held
        [tunnel] = stand.door.tunnels.live
        assert tunnel.link.buffered() <= 256 * 1024
        sock.close()


async def test_tiny_messages_of_one_client_do_not_starve_another(stand: Stand) -> None:
    loud = await bare_tunnel(stand)
    flooding = masked(b"\xa2\x03\x02\x00") * 20_000

    async def shout() -> None:
        while True:
            await asyncio.get_running_loop().sock_sendall(loud, flooding)

    shouting = asyncio.create_task(shout())
    async with await stand.client() as client:
        for number in range(20):
            await client.send(encode(1, bytes([number])))
            assert await asyncio.wait_for(client.recv(), 2) == encode(2, bytes([number]))
    shouting.cancel()
    loud.close()


async def test_library_path_carries_frames_too() -> None:
    async with standing(AERO_L2_RECEIVE_PATH="library") as stand, await stand.client() as client:
        await client.send(MESSAGE)
        assert await from_wire(stand) == FRAME
