"""Every reason for which a tunnel ends, provoked over real sockets: what client, log and metrics see."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.door import OFFER, Stand, bare_tunnel, standing

from aero_l2.auth.session_token import SessionClaims, mint_session_token
from aero_l2.observe.metrics import Metrics
from aero_l2.session.closing import CLOSINGS, Closing, Reason
from aero_l2.wire.tunnel import encode, encode_error

SECRET = "a session secret that only tests know"
SESSION = {"AERO_L2_SESSION_SECRET": SECRET, "AERO_L2_AUTH_MODE": "session"}
PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol.md"


def masked(message: bytes, first: int = 0x82) -> bytes:
    """A client's WebSocket frame with a mask of zeros."""
    return bytes([first, 0x80 | len(message)]) + bytes(4) + message


FRAME = bytes(range(60))
RESUMABLE = OFFER.replace("\r\n", ", aero-l2-resume\r\n")
SECRET_MESSAGE = re.compile(rb"\x82\x24\xa2\x03\x10\x00[0-9A-Za-z_-]{32}")
GREETING = b"\x82\x05\xa2\x03\x11\x00\x00"
Doing = Callable[[Stand, socket.socket], Awaitable[Any]]


def sending(*messages: bytes) -> Doing:
    async def send(_: Stand, sock: socket.socket) -> None:
        await asyncio.get_running_loop().sock_sendall(sock, b"".join(messages))

    return send


async def nothing(_: Stand, __: socket.socket) -> None: ...


async def flood(stand: Stand, _: socket.socket) -> None:
    """Frames for a client that does not read, until it is found out."""
    wire = stand.opener.only.wire
    async with asyncio.timeout(30):
        while not stand.value("aero_l2_sessions_closed_total", reason="backpressure"):
            with contextlib.suppress(BlockingIOError):
                wire.send(bytes(1514))
            await asyncio.sleep(0.001)


async def lose_segment(stand: Stand, _: socket.socket) -> None:
    stand.opener.only.failed.set_result("slirp4netns died of signal 9")


async def leave(_: Stand, sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)


async def kick(stand: Stand, _: socket.socket) -> None:
    [tunnel] = stand.door.tunnels.live
    tunnel.close(Reason.KICKED)


async def shut_down(stand: Stand, _: socket.socket) -> asyncio.Task[None]:
    return asyncio.create_task(stand.door.shutdown())


async def cut_off(stand: Stand, _: socket.socket) -> None:
    await stand.door.close()


@dataclass(frozen=True)
class Way:
    """How a reason comes about.

    text: what the occasion supplies. close: of the library, where the table has none. path: of the tunnel.
    token_s: seconds for which its credential is good, None = it needs none. offer: what its client offers.
    """

    does: Doing = nothing
    settings: dict[str, str] = field(default_factory=dict)
    text: str = ""
    close: tuple[int, str] | None = None
    path: str = "/l2"
    token_s: float | None = None
    offer: str = OFFER


WAYS = {
    Reason.MALFORMED_MESSAGE: Way(sending(masked(b"\0\3\0\0")), text="invalid magic: 0x00"),
    Reason.BYTE_QUOTA: Way(sending(masked(encode(0, FRAME))), {"AERO_L2_MAX_BYTES_PER_CONNECTION": "63"}),
    Reason.HOURLY_BYTE_QUOTA: Way(
        sending(masked(encode(0, FRAME))),
        {**SESSION, "AERO_L2_MAX_BYTES_PER_PRINCIPAL_HOUR": "63"},
        token_s=600,
    ),
    Reason.FRAME_RATE_QUOTA: Way(sending(masked(b"", 0x81) * 3), {"AERO_L2_MAX_FRAMES_PER_SECOND": "2"}),
    Reason.BACKPRESSURE: Way(flood, {"AERO_L2_SEND_STALL_TIMEOUT_MS": "300"}),
    Reason.IDLE_TIMEOUT: Way(settings={"AERO_L2_IDLE_TIMEOUT_MS": "200"}),
    Reason.SESSION_TOO_LONG: Way(settings={"AERO_L2_MAX_SESSION_SECONDS": "1"}),
    Reason.SESSION_EXPIRED: Way(settings={**SESSION, "AERO_L2_CLOSE_ON_EXPIRY": "1"}, token_s=2),
    Reason.KICKED: Way(kick),
    Reason.SHUTDOWN: Way(shut_down),
    Reason.TUNNEL_FAILED: Way(lose_segment),
    Reason.WEBSOCKET_FAILED: Way(
        sending(b"\x82\x01x"), text="1002 incorrect masking", close=(1002, "incorrect masking")
    ),
    Reason.PEER_CLOSED: Way(sending(masked(b"\x03\xe8bye", 0x88)), close=(1000, "bye")),
    Reason.PEER_GONE: Way(leave),
    Reason.PEER_SILENT: Way(settings={"AERO_L2_RAW_FRAMES": "1"}, path="/v86"),
    Reason.NOT_RESUMED: Way(leave, {"AERO_L2_RESUME_SECONDS": "1"}, offer=RESUMABLE),
    Reason.CUT_OFF: Way(cut_off),
}


def expected_end(way: Way, closing: Closing) -> bytes:
    """ERROR and close frame as the table has them."""
    code, text = way.close or (closing.close_code, closing.text or way.text)
    data = b""
    if way.offer == RESUMABLE:
        data += GREETING
    if closing.error_code is not None and way.path == "/l2":
        body = encode_error(closing.error_code, text, 256)
        data += bytes([0x82, len(body)]) + body
    if code is not None:
        data += bytes([0x88, len(text) + 2]) + code.to_bytes(2, "big") + text.encode()
    return data


async def read_to_the_end(sock: socket.socket) -> bytes:
    """What came last. A close frame is answered, so the server need not wait for it."""
    loop, data = asyncio.get_running_loop(), b""
    async with asyncio.timeout(30):
        while chunk := await loop.sock_recv(sock, 1 << 16):
            data = SECRET_MESSAGE.sub(b"", data + chunk)[-400:]
            if re.search(rb"\x88.\x03[\xe8-\xf3]", data, re.DOTALL):
                with contextlib.suppress(OSError):
                    await loop.sock_sendall(sock, masked(b"\x03\xe8", 0x88))
    return data


def counted(stand: Stand) -> dict[str, float]:
    """Tunnels that ended, by reason, where there are any."""
    ends = {reason: stand.value("aero_l2_sessions_closed_total", reason=reason.value) for reason in Reason}
    return {reason.value: count for reason, count in ends.items() if count}


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.value)
async def test_every_reason_is_seen_by_client_log_and_metrics(reason: Reason) -> None:
    way, closing = WAYS[reason], CLOSINGS[reason]
    more = way.offer
    if way.token_s is not None:
        token = mint_session_token(SessionClaims("me", time.time() + way.token_s), SECRET.encode())
        more += f"Cookie: aero_session={token}\r\n"
    async with AsyncExitStack() as stack:
        stand = await stack.enter_async_context(standing(ping_interval_s=0.1, **way.settings))
        lines = stack.enter_context(capture_logs())
        more = more if way.path == "/l2" else ""
        sock = await bare_tunnel(stand, way.path, more, receive_buffer=4096)
        stack.callback(sock.close)
        doing = await way.does(stand, sock)
        data = await read_to_the_end(sock)
        await stand.until(lambda: stand.door.active == 0, "released")
        if isinstance(doing, asyncio.Task):
            await doing
        expected = expected_end(way, closing)
        assert data.endswith(expected)
        assert expected or not data
        assert counted(stand) == {reason.value: 1}
        if closing.metric is not None:
            assert getattr(stand.metrics, closing.metric)._value.get() == 1
        [line] = [line for line in lines if line["event"] == "tunnel closed"]
        assert (line["reason"], line["text"]) == (reason.value, way.text or closing.text)
        assert line["log_level"] == closing.log_level


def test_every_reason_has_a_way_and_a_row() -> None:
    assert set(WAYS) == set(CLOSINGS) == set(Reason)


# --- The documentation -----------------------------------------------------------------------------------


def rows(heading: str) -> list[list[str]]:
    """Cells of the first table under a heading of docs/protocol.md, its header left out."""
    section = PROTOCOL.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_documented_table_is_the_one_of_the_program() -> None:
    documented = {cells[0].strip("`"): tuple(cells[1:]) for cells in rows("How tunnels end")}
    of_the_program = {}
    for reason, closing in CLOSINGS.items():
        error = f"{closing.error_code.value}" if closing.error_code is not None else ""
        code = f"{closing.close_code}" if closing.close_code is not None else ""
        text = f"`{closing.text}`" if closing.text else ""
        metric = f"`{getattr(Metrics(), closing.metric)._name}_total`" if closing.metric is not None else ""
        of_the_program[reason.value] = (error, code, text, closing.log_level, metric)
    assert documented == of_the_program


def test_clients_are_told_what_each_close_means() -> None:
    text = PROTOCOL.read_text()
    for closing in CLOSINGS.values():
        if closing.close_code is not None and closing.text:
            assert f"`{closing.text}`" in text.split("## How tunnels end")[0], closing.text
