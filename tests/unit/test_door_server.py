"""The door over real sockets on loopback: endpoints, refusals, bounds, shutdown."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator

import pytest
from support.door import OFFER, UPGRADE, Stand, settings, standing
from websockets.exceptions import ConnectionClosed

from aero_l2.door.connection import Connection
from aero_l2.door.server import LAST_ANSWERS_S
from aero_l2.observe.limit import BURST


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async with standing(GIT_SHA="abc", VERSION="9.9") as it:
        yield it


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/version", "/metrics"])
async def test_head_is_get_without_a_body(stand: Stand, path: str) -> None:
    status, headers, body = await stand.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
    head_status, head_headers, head_body = await stand.ask(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (status, head_status, head_body) == (200, 200, b"")
    assert headers["content-length"] == head_headers["content-length"] == str(len(body))
    assert headers["connection"] == "close"


async def test_version(stand: Stand) -> None:
    _, headers, body = await stand.ask("GET /version HTTP/1.0\r\n\r\n")
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {"version": "9.9", "gitSha": "abc", "builtAt": ""}


async def test_metrics_are_exposed(stand: Stand) -> None:
    _, headers, body = await stand.ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"\nl2_sessions_total 0.0\n" in body


async def test_readiness_is_asked(stand: Stand) -> None:
    stand.readiness.reason = "netd is gone"
    assert (await stand.ask("GET /readyz HTTP/1.1\r\n\r\n"))[::2] == (503, b"netd is gone")
    assert (await stand.ask("GET /healthz HTTP/1.1\r\n\r\n"))[0] == 200


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        ("GET /nowhere HTTP/1.1\r\n\r\n", 404),
        ("GET /l2 HTTP/1.1\r\n\r\n", 400),
        ("GET /eth/ HTTP/1.1\r\n\r\n", 400),
        ("POST /l2 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        ("POST /healthz HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        ("DELETE /nowhere HTTP/1.1\r\n\r\n", 404),
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\n\r\n", 505),
        ("GET /healthz HTTP/1.1\r\nno colon\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nX: " + "a" * 17000 + "\r\n\r\n", 431),
        ("GET /healthz HTTP/1.1\r\n" + "X: y\r\n" * 200 + "\r\n", 431),
        (UPGRADE.format(path="/l2", more=OFFER).replace("Version: 13", "Version: 8"), 426),
        (UPGRADE.format(path="/l2", more=OFFER).replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400),
        (UPGRADE.format(path="/l2", more=OFFER + "Content-Length: 5\r\n"), 400),
    ],
)
async def test_request_is_refused(stand: Stand, request_head: str, status: int) -> None:
    assert (await stand.ask(request_head))[0] == status
    assert not stand.opener.entered.is_set()


async def test_allowed_methods_are_named(stand: Stand) -> None:
    assert (await stand.ask("PUT /metrics HTTP/1.1\r\n\r\n"))[1]["allow"] == "GET, HEAD"
    assert (await stand.ask("HEAD /l2 HTTP/1.1\r\n\r\n"))[1]["allow"] == "GET"


async def test_answer_survives_a_large_body_nobody_reads(stand: Stand) -> None:
    request = b"POST /l2 HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n" + bytes(3_000_000)
    assert (await stand.ask(request))[0] == 405


_MALFORMED_HANDSHAKE = UPGRADE.format(path="/l2", more=OFFER).replace("dGhlIHNhbXBsZSBub25jZQ==", "short")


@pytest.mark.parametrize(
    ("request_head", "refuse", "event"),
    [
        (UPGRADE.format(path="/l2", more=""), "", "upgrade refused"),
        (UPGRADE.format(path="/l2", more=OFFER), "netd is gone", "tunnel cannot be made"),
        (_MALFORMED_HANDSHAKE, "", "request refused"),
        ("nonsense\r\n\r\n", "", "request refused"),
    ],
    ids=["refusal", "set-up", "handshake", "request"],
)
async def test_lines_that_clients_provoke_are_limited(
    stand: Stand, capsys: pytest.CaptureFixture[str], request_head: str, refuse: str, event: str
) -> None:
    stand.opener.refuse = refuse
    for _ in range(BURST + 20):
        await stand.ask(request_head)
    await stand.door.close()
    lines = [line for line in capsys.readouterr().out.splitlines() if event in line]
    assert len(lines) == BURST + 1
    assert re.search(r"lines left out .*\blines=20\b", lines[-1])


async def test_missing_subprotocol_is_named(stand: Stand) -> None:
    for more in ("", "Sec-WebSocket-Protocol: other, AERO-L2-TUNNEL-V1\r\n"):
        status, _, body = await stand.ask(UPGRADE.format(path="/l2", more=more))
        assert (status, body) == (400, b'missing required websocket subprotocol "aero-l2-tunnel-v1"')
    assert stand.value("l2_upgrade_rejected_total") == 0


@pytest.mark.parametrize("path", ["/l2", "/l2/", "/eth", "/eth/", "/l2?token=x", "http://x/l2"])
async def test_tunnel_paths_upgrade(stand: Stand, path: str) -> None:
    offers = "Sec-WebSocket-Protocol: a@b, other\r\nSec-WebSocket-Protocol: aero-l2-tunnel-v1,x\r\n"
    extension = "Sec-WebSocket-Extensions: permessage-deflate\r\nOrigin: a\r\nOrigin: b\r\n"
    reader, writer = await stand.raw()
    writer.write(UPGRADE.format(path=path, more=offers + extension).encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    assert head.startswith("http/1.1 101 ")
    assert "sec-websocket-protocol: aero-l2-tunnel-v1\r\n" in head
    assert "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n" in head
    assert "extensions" not in head
    writer.close()


async def test_process_wide_limit() -> None:
    async with standing(AERO_L2_MAX_CONNECTIONS="1") as stand:
        first = await stand.client()
        refused = await stand.ask(UPGRADE.format(path="/l2", more=OFFER))
        assert refused[::2] == (429, b"max connections exceeded")
        assert stand.value("l2_upgrade_rejected_total") == 1
        assert stand.value("l2_upgrade_reject_max_connections_total") == 1
        await first.close()
        await stand.until(lambda: stand.door.active == 0, "permit given back")
        await (await stand.client()).close()


async def test_tunnel_that_cannot_be_made_says_why(stand: Stand) -> None:
    stand.opener.refuse = "slirp4netns is not installed"
    answer = await stand.ask(UPGRADE.format(path="/l2", more=OFFER))
    assert answer[::2] == (503, b"slirp4netns is not installed")
    assert stand.door.active == 0
    assert stand.value("l2_upgrade_rejected_total") == 0


async def test_client_that_vanishes_during_set_up_leaves_nothing(stand: Stand) -> None:
    stand.opener.hold = asyncio.Event()
    _, writer = await stand.raw()
    writer.write(UPGRADE.format(path="/l2", more=OFFER).encode())
    await stand.opener.entered.wait()
    assert stand.door.active == 1
    writer.close()
    await stand.until(lambda: stand.door.active == 0 and not stand.opener.live, "set-up undone")
    assert stand.value("l2_sessions_total") == 0


async def test_client_that_floods_before_the_101_is_refused(stand: Stand) -> None:
    stand.opener.hold = asyncio.Event()
    answer = await stand.ask(UPGRADE.format(path="/l2", more=OFFER).encode() + bytes(100_000))
    assert answer[0] == 400
    await stand.until(lambda: stand.door.active == 0, "set-up undone")


async def test_flood_in_one_read_with_the_request_makes_no_tunnel(stand: Stand) -> None:
    mine, theirs = socket.socketpair()
    mine.setblocking(False)
    loop = asyncio.get_running_loop()
    _, connection = await loop.connect_accepted_socket(lambda: Connection(stand.door), theirs)
    connection.data_received(UPGRADE.format(path="/l2", more=OFFER).encode() + bytes(100_000))
    answer = b""
    while chunk := await asyncio.wait_for(loop.sock_recv(mine, 65536), 5):
        answer += chunk
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert not stand.opener.entered.is_set()
    mine.close()


async def test_refused_version_names_the_one_to_use(stand: Stand) -> None:
    """RFC 9110 §15.5.22 and §7.8: what to upgrade to, listed in Connection too."""
    request = UPGRADE.format(path="/l2", more=OFFER).replace("Version: 13", "Version: 8")
    status, headers, _ = await stand.ask(request)
    assert status == 426
    assert headers["sec-websocket-version"] == "13"
    assert headers["upgrade"] == "websocket"
    assert headers["connection"] == "close, Upgrade"


_KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
_BAD_KEY = b"Sec-WebSocket-Key must be given once: 16 bytes in base64"


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (_KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=\r\n", _BAD_KEY),
        (_KEY, "Sec-WebSocket-Key: short\r\n", _BAD_KEY),
        (_KEY, "", _BAD_KEY),
        (_KEY, _KEY * 2, _BAD_KEY),
        ("Sec-WebSocket-Version: 13\r\n", "", b"Sec-WebSocket-Version is missing"),
        ("Upgrade: websocket", "Upgrade: websocket, h2c", b"Upgrade must be websocket and nothing else"),
    ],
)
async def test_malformed_handshake_is_named_in_our_words(
    stand: Stand, old: str, new: str, text: bytes
) -> None:
    request = UPGRADE.format(path="/l2", more=OFFER)
    assert old in request
    assert (await stand.ask(request.replace(old, new)))[::2] == (400, text)


async def test_slow_request_is_ended(stand: Stand) -> None:
    stand.door.head_timeout_s = 0.1
    assert (await stand.ask("GET /healthz HTTP/1.1\r\nX: sl"))[0] == 408
    reader, _ = await stand.raw()
    assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_waiting_clients_do_not_keep_others_out() -> None:
    async with standing() as stand:
        idle = [await stand.raw() for _ in range(300)]
        assert (await stand.ask("GET /healthz HTTP/1.1\r\n\r\n"))[0] == 200
        assert await asyncio.wait_for(idle[0][0].read(), 5) == b""
        for _, writer in idle:
            writer.close()


async def test_client_that_opens_many_connections_evicts_its_own() -> None:
    async with standing() as stand:
        loop = asyncio.get_running_loop()
        quiet = socket.socket()
        quiet.bind(("127.0.0.2", 0))
        quiet.setblocking(False)
        await loop.sock_connect(quiet, ("127.0.0.1", stand.door.port))
        loud = [await stand.raw() for _ in range(300)]
        await loop.sock_sendall(quiet, b"GET /healthz HTTP/1.1\r\n\r\n")
        assert (await asyncio.wait_for(loop.sock_recv(quiet, 100), 5)).startswith(b"HTTP/1.1 200 ")
        quiet.close()
        for _, writer in loud:
            writer.close()


async def test_tls_hello_is_refused_at_once(stand: Stand) -> None:
    assert (await stand.ask(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"))[0] == 400


async def test_shutdown_closes_tunnels_and_refuses_new_ones() -> None:
    async with standing() as stand:
        port = stand.door.port
        client = await stand.client()
        stubborn, stubborn_writer = await stand.raw()
        stubborn_writer.write(UPGRADE.format(path="/l2", more=OFFER).encode())
        await stubborn.readuntil(b"\r\n\r\n")
        stopping = asyncio.create_task(stand.door.shutdown())
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert (client.close_code, client.close_reason) == (1001, "shutting down")
        refused = await stand.ask(UPGRADE.format(path="/l2", more=""))
        assert refused[::2] == (503, b"shutting down")
        assert (await stand.ask("GET /readyz HTTP/1.1\r\n\r\n"))[0] == 503
        assert (await stand.ask("GET /healthz HTTP/1.1\r\n\r\n"))[0] == 200
        began = time.monotonic()
        await stopping
        assert time.monotonic() - began < 2
        assert stand.door.active == 0
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_drain_lets_open_tunnels_live_and_is_over_with_the_last() -> None:
    async with standing(AERO_L2_DRAIN_MS="600000") as stand:
        client = await stand.client()
        stopping = asyncio.create_task(stand.door.shutdown())
        await stand.until(lambda: stand.door.endpoints.draining, "it drains")
        assert (await stand.ask(UPGRADE.format(path="/l2", more=OFFER)))[::2] == (503, b"shutting down")
        assert (await stand.ask("GET /readyz HTTP/1.1\r\n\r\n"))[0] == 503
        await client.send(b"\xa2\x03\x01\x00alive")
        assert await client.recv() == b"\xa2\x03\x02\x00alive"
        assert not stopping.done()
        await client.close()
        await asyncio.wait_for(stopping, 10)


async def test_second_wish_ends_a_drain_at_once() -> None:
    async with standing(AERO_L2_DRAIN_MS="600000", AERO_L2_SHUTDOWN_GRACE_MS="600000") as stand:
        client, at_once = await stand.client(), asyncio.Event()
        stopping = asyncio.create_task(stand.door.shutdown(at_once))
        await stand.until(lambda: stand.door.endpoints.draining, "it drains")
        at_once.set()
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(client.recv(), 10)
        assert (client.close_code, client.close_reason) == (1001, "shutting down")
        await asyncio.wait_for(stopping, 10)


async def test_drain_is_what_the_settings_say_when_it_begins() -> None:
    async with standing(AERO_L2_DRAIN_MS="600000") as stand:
        client = await stand.client()
        stand.door.apply(settings(AERO_L2_DRAIN_MS="0"))
        await asyncio.wait_for(stand.door.shutdown(), 10)
        with pytest.raises(ConnectionClosed):
            await client.recv()


async def test_client_that_connected_in_time_is_answered() -> None:
    """The last one to be accepted has not asked yet when the listener is closed."""
    async with standing() as stand:
        port = stand.door.port
        reader, writer = await stand.raw()
        stopping = asyncio.create_task(stand.door.shutdown())
        await stand.until(lambda: not stand.door.addresses, "nobody listens any more")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert answer.endswith(b"shutting down")
        writer.close()
        await asyncio.wait_for(stopping, 10)


async def test_client_that_never_asks_holds_the_end_up_for_a_bounded_time() -> None:
    async with standing() as stand:
        _, writer = await stand.raw()
        await asyncio.wait_for(stand.door.shutdown(), 5 * LAST_ANSWERS_S)
        writer.close()


async def test_shutdown_during_set_up_answers_503(stand: Stand) -> None:
    stand.opener.hold = asyncio.Event()
    asking = asyncio.create_task(stand.ask(UPGRADE.format(path="/l2", more=OFFER)))
    await stand.opener.entered.wait()
    await stand.door.shutdown()
    assert (await asking)[::2] == (503, b"shutting down")
    assert not stand.opener.live
