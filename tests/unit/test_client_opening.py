"""Opening a tunnel at servers that refuse, redirect, dawdle or are something else."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from support.peer import Peer, Script, close, error, serving
from support.tlsedge import certificate
from support.wait import until

from aero_l2.client import (
    ClientError,
    Credential,
    CredentialRefused,
    Delivery,
    InvalidTarget,
    NotATunnel,
    OpenTimeout,
    Options,
    ProxyFailed,
    TlsFailed,
    Unavailable,
    Unreachable,
    connect,
)

CANARY = "canary-5e3c.r3t"
OPTIONS = Options(keepalive_s=0, open_timeout_s=20)


def answers(head: str, body: bytes = b"", *, length: bool = True) -> Script:
    """Answer the upgrade with this."""

    async def script(peer: Peer) -> None:
        lines = [f"HTTP/1.1 {head}", *([f"Content-Length: {len(body)}"] if length else []), "", ""]
        peer.send("\r\n".join(lines).encode() + body)
        await peer.writer.drain()

    return script


async def opened(url: str, options: Options = OPTIONS) -> ClientError:
    """How the attempt fails."""
    with pytest.raises(ClientError) as caught:
        async with connect(url, options):
            pass
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    return caught.value


async def test_answer_is_told_with_its_body_and_its_pause() -> None:
    async with serving(answers("503 No\r\nRetry-After: 7", b"shutting down"), handshake=False) as server:
        refused = await opened(server.url)
    assert isinstance(refused, Unavailable)
    assert (refused.status, refused.body, refused.retry_after_s) == (503, "shutting down", 7.0)


async def test_headers_that_come_twice_are_survived() -> None:
    twice = "503 No\r\nRetry-After: 7\r\nRetry-After: 9\r\nLocation: a\r\nLocation: b"
    async with serving(answers(twice), handshake=False) as server:
        assert (await opened(server.url)).retry_after_s == 7.0


async def test_401_without_a_credential_says_so() -> None:
    async with serving(answers("401 No", b"missing token"), handshake=False) as server:
        without = await opened(server.url)
        given = [
            await opened(server.url, replace(OPTIONS, credential=Credential(CANARY))),
            await opened(f"{server.url}?token={CANARY}"),
        ]
    assert isinstance(without, CredentialRefused)
    assert without.is_without_credential
    assert str(without).endswith(": no credential was sent")
    for refused in given:
        assert isinstance(refused, CredentialRefused)
        assert not refused.is_without_credential
        assert "no credential" not in str(refused)


async def test_http_1_0_is_one_question() -> None:
    async def script(peer: Peer) -> None:
        peer.send(b"HTTP/1.0 200 OK\r\n\r\n")

    async with serving(script, handshake=False) as server:
        refused = await opened(server.url)
    assert isinstance(refused, NotATunnel)
    assert "does not answer as HTTP/1.1" in str(refused)
    assert str(refused).count("?") == 1


async def test_body_is_one_printable_line() -> None:
    body = b"\x1b[31mno\r\n\xff" + b"y" * 900_000
    async with serving(answers("401 No", body), handshake=False) as server:
        refused = await opened(server.url)
    assert isinstance(refused, CredentialRefused)
    assert refused.body.startswith("?[31mno \ufffdyyy")


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("delivery", Delivery)
async def test_redirect_is_not_followed(status: int, delivery: Delivery) -> None:
    async with serving(handshake=False) as elsewhere:
        place = f"http://127.0.0.1:{elsewhere.port}/l2?token={CANARY}"
        async with serving(answers(f"{status} Gone\r\nLocation: {place}"), handshake=False) as server:
            options = replace(OPTIONS, credential=Credential(CANARY, delivery))
            refused = await opened(server.url, options)
    assert isinstance(refused, NotATunnel)
    assert f"it points to http://127.0.0.1:{elsewhere.port}/l2, which is not followed" in str(refused)
    assert CANARY not in str(refused)
    assert not elsewhere.peers


@pytest.mark.parametrize("place", ["", "//", "http://[", "\x1b]", "x" * 5000, "http://u:pw@h/"])
async def test_any_redirect_is_survived(place: str) -> None:
    async with serving(answers(f"301 Gone\r\nLocation: {place}"), handshake=False) as server:
        refused = await opened(server.url)
    assert isinstance(refused, NotATunnel)
    assert "pw" not in str(refused)


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 999 What\r\n\r\n",
        b"HTTP/1.1 401 No\r\nContent-Length: 99999999\r\n\r\n",
        b"HTTP/1.1 401 No\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + 200 * b"A: b\r\n" + b"\r\n",
        b"A" * 20_000,
    ],
)
async def test_what_speaks_no_http_is_no_tunnel(said: bytes) -> None:
    async def script(peer: Peer) -> None:
        peer.send(said)
        await peer.gone()

    async with serving(script, handshake=False) as server:
        refused = await opened(server.url)
    assert isinstance(refused, NotATunnel)
    assert not refused.retryable


@pytest.mark.parametrize(
    ("more", "subprotocol"),
    [
        ((), None),
        ((), f"aero-l2-token.{CANARY}"),
        ((), "chat"),
        ((f"Sec-WebSocket-Protocol: aero-l2-token.{CANARY}",), "aero-l2-tunnel-v1"),
        (("Sec-WebSocket-Extensions: permessage-deflate",), "aero-l2-tunnel-v1"),
        (("Sec-WebSocket-Accept: again",), "aero-l2-tunnel-v1"),
        (("Upgrade: websocket, h2c",), "aero-l2-tunnel-v1"),
    ],
)
async def test_websocket_that_is_not_what_was_asked_for_is_no_tunnel(
    more: tuple[str, ...], subprotocol: str | None
) -> None:
    async def script(peer: Peer) -> None:
        peer.accept(*more, subprotocol=subprotocol)
        await peer.gone()

    async with serving(script, handshake=False) as server:
        refused = await opened(server.url, replace(OPTIONS, credential=Credential(CANARY)))
    assert isinstance(refused, NotATunnel)
    assert CANARY not in str(refused)


async def test_connection_that_ends_before_an_answer_may_be_tried_again() -> None:
    async def hangs_up(peer: Peer) -> None:
        pass

    async def resets(peer: Peer) -> None:
        peer.writer.transport.abort()

    for script in (hangs_up, resets):
        async with serving(script, handshake=False) as server:
            failed = await opened(server.url)
        assert type(failed) is Unreachable
        assert failed.retryable


async def test_nobody_there_is_said_plainly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    failed = await opened(f"ws://127.0.0.1:{port}/l2?token={CANARY}")
    assert str(failed) == f"ws://127.0.0.1:{port}/l2: Connection refused"
    failed = await opened(f"ws://localhost:{port}")
    assert str(failed) == f"ws://localhost:{port}/l2: Connection refused"


async def test_unknown_name_is_said_plainly() -> None:
    failed = await opened("ws://nobody.invalid/l2")
    assert type(failed) is Unreachable
    assert "its name cannot be resolved" in str(failed)


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 101 Switching", b"HTTP/1.1 401 No\r\nContent-Length: 9\r\n\r\nx"]
)
async def test_server_that_dawdles_is_a_timeout(said: bytes) -> None:
    async def script(peer: Peer) -> None:
        peer.send(said)
        await peer.gone()

    async with serving(script, handshake=False) as server:
        failed = await opened(server.url, replace(OPTIONS, open_timeout_s=0.3))
    assert isinstance(failed, OpenTimeout)
    assert str(failed) == f"{server.url}: no answer within 0.3 s"


async def test_cancelled_attempt_leaves_nothing() -> None:
    closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.gone()
        closed.set()

    async with serving(script, handshake=False) as server:
        attempt = asyncio.ensure_future(opened(server.url))
        await until(lambda: server.peers, "a connection")
        attempt.cancel()
        await asyncio.gather(attempt, return_exceptions=True)
        await asyncio.wait_for(closed.wait(), 10)


# -- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a certificate for 127.0.0.1, its key, and nothing that knows it."""
    where = tmp_path_factory.mktemp("ca")
    certificate(where, "IP:127.0.0.1")
    return where


def tls_server(authority: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "ca.pem", authority / "key.pem")
    return context


async def closes(peer: Peer) -> None:
    peer.send(error(9, "slow") + close(1008, "slow"))
    await peer.gone()


async def test_tls_with_its_ca_opens(authority: Path) -> None:
    options = replace(OPTIONS, ca_file=authority / "ca.pem")
    async with serving(closes, tls=tls_server(authority)) as server, connect(server.url, options) as tunnel:
        ended = await asyncio.wait_for(tunnel.wait_closed(), 10)
    assert "close code 1008, ERROR 9" in str(ended)


async def test_unknown_ca_is_refused_before_the_credential_is_sent(authority: Path) -> None:
    async with serving(closes, tls=tls_server(authority)) as server:
        failed = await opened(server.url, replace(OPTIONS, credential=Credential(CANARY)))
        assert not server.peers
    assert isinstance(failed, TlsFailed)
    assert "its certificate is not accepted: self-signed certificate (give the CA's file" in str(failed)
    assert not failed.retryable


async def test_certificate_of_another_name_is_refused(authority: Path) -> None:
    async with serving(closes, tls=tls_server(authority)) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        failed = await opened(url, replace(OPTIONS, ca_file=authority / "ca.pem"))
    assert isinstance(failed, TlsFailed)
    assert "localhost" in str(failed)


async def test_wss_where_no_tls_is_spoken_says_so() -> None:
    async with serving(answers("400 No"), handshake=False) as server:
        failed = await opened(server.url.replace("ws:", "wss:"), replace(OPTIONS, open_timeout_s=2))
    assert isinstance(failed, TlsFailed | Unreachable)


async def test_connection_that_ends_during_the_tls_handshake_may_be_tried_again() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        failed = await opened(f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert failed.retryable


@pytest.mark.parametrize("content", [None, "", "no certificate", "-----BEGIN CERTIFICATE-----\nAA\n"])
async def test_ca_file_that_cannot_be_used_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    failed = await opened("wss://127.0.0.1:1", replace(OPTIONS, ca_file=file))
    assert isinstance(failed, InvalidTarget)
    assert f"cannot read certificates from {file}: " in str(failed)


# -- proxies of the environment


async def test_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    async def tunnels(peer: Peer) -> None:
        assert peer.request.startswith("CONNECT lab.invalid:80 ")
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        await peer.read_request()
        peer.accept()
        peer.send(close(1001, "there"))
        await peer.gone()

    async def refuses(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 407 Who are you\r\n\r\n")
        await peer.writer.drain()

    async def is_none(peer: Peer) -> None:
        peer.send(b"hello\r\n")
        await peer.writer.drain()

    async with serving(tunnels, refuses, is_none, handshake=False) as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:{CANARY}@127.0.0.1:{proxy.port}")
        async with connect("ws://lab.invalid/l2", OPTIONS) as tunnel:
            assert (await tunnel.wait_closed()).reason == "there"
        refused = await opened("ws://lab.invalid/l2")
        assert isinstance(refused, ProxyFailed)
        assert "refuses: HTTP 407" in str(refused)
        assert not refused.retryable
        other = await opened("ws://lab.invalid/l2")
        assert isinstance(other, ProxyFailed)
        assert CANARY not in str(refused) + str(other)
        assert (await opened("ws://127.0.0.1:1/l2")).args == ("ws://127.0.0.1:1/l2: Connection refused",)
        unproxied = await opened("ws://lab.invalid/l2", replace(OPTIONS, proxy=False))
        assert "its name cannot be resolved" in str(unproxied)
        assert len(proxy.peers) == 3


@pytest.mark.parametrize(
    ("address", "says"),
    [
        (f"socks5://user:{CANARY}@127.0.0.1:1", "python-socks is needed"),
        (f"gopher://user:{CANARY}@127.0.0.1:1", "is not usable: scheme gopher isn't supported"),
        (f"http://user:{CANARY}@127.0.0.1:1/path", "is not usable: path is meaningless"),
    ],
)
async def test_proxy_that_cannot_be_used_is_said_without_its_password(
    monkeypatch: pytest.MonkeyPatch, address: str, says: str
) -> None:
    monkeypatch.setenv("http_proxy", address)
    failed = await opened("ws://lab.invalid/l2")
    assert says in str(failed)
    assert CANARY not in str(failed)
    assert not failed.retryable


async def test_nothing_is_logged_even_where_everything_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(answers("401 No", CANARY.encode()), handshake=False) as server:
        for delivery in Delivery:
            refused = await opened(server.url, replace(OPTIONS, credential=Credential(CANARY, delivery)))
            assert str(refused).startswith("HTTP 401: *** (")
    assert CANARY not in caplog.text


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\0\0\0",
        b"220 mail",
        b"HTTP/1.0 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: wrong\r\n\r\n",
        b"HTTP/1.1 401 No\r\n\r\n" + b"x" * 2_000_000,
    ],
)
async def test_what_is_no_tunnel_is_said_at_once_though_the_connection_stays_open(said: bytes) -> None:
    """The server neither closes nor reads on: only this side can end it."""
    over = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await over.wait()
        writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        refused = await opened(f"ws://127.0.0.1:{port}", replace(OPTIONS, open_timeout_s=60))
        over.set()
    assert isinstance(refused, NotATunnel)
    assert not refused.retryable
