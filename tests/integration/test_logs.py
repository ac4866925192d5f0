"""The log of the real proxy: every line as docs/logs.md has it, whoever writes it and whatever is sent."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support import addresses as at
from support import logevents
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import raw_guest
from support.tunnel import RefusedError
from support.wait import until, wait_until
from support.world import World

SECRET = "a-session-secret-0123456789"
PAGE = "https://page.example"
ENV = {"AERO_L2_SESSION_SECRET": SECRET, "AERO_L2_ALLOWED_ORIGINS": PAGE, "AERO_L2_OPEN": "0"}


def cookie(sid: str) -> str:
    """A good one. JSON's own escapes let in what a client library would not send."""
    claims = json.dumps({"v": 1, "sid": sid, "exp": time.time() + 3600})
    payload = base64.urlsafe_b64encode(claims.encode()).decode().rstrip("=")
    mac = hmac.digest(SECRET.encode(), payload.encode(), "sha256")
    return f"aero_session={payload}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


def headers(sid: str, origin: str = PAGE) -> dict[str, str]:
    return {"Cookie": cookie(sid), "Origin": origin}


def events(proxy: Proxy, name: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in proxy.log.splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == name]


async def refused(proxy: Proxy, sid: str, origin: str) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        await proxy.tunnel(headers=headers(sid, origin)).__aenter__()
    return caught.value


async def test_every_line_of_a_tunnel_says_whose_it_is(world: World, proxy_as: RunAs) -> None:
    env = {**ENV, "AERO_L2_MAX_CONNECTIONS_PER_SESSION": "1"}
    with run_proxy(world, proxy_as, env) as proxy:
        async with proxy.tunnel(headers=headers("u-1")):
            assert (await refused(proxy, "u-1", PAGE)).status == 429
            assert (await refused(proxy, "u-2", "https://other.example")).status == 403
            assert (await refused(proxy, "", PAGE)).status == 401
            proxy.kill(proxy.with_role("nat")[-1])
            await until(lambda: events(proxy, "tunnel closed"), "its end is in the log")
        quota, origin, nobody = events(proxy, "upgrade refused")
        assert (quota["principal"], quota["status"], quota["client"]) == ("u-1", 429, at.LOOPBACK)
        assert (origin["principal"], origin["status"]) == ("u-2", 403)
        assert (nobody["status"], "principal" in nobody) == (401, False)
        of_tunnel = [line for name in OF_A_TUNNEL for line in events(proxy, name)]
        assert [line["event"] for line in of_tunnel] == OF_A_TUNNEL
        who = {(line["session"], line["client"], line["principal"]) for line in of_tunnel}
        assert who == {(1, at.LOOPBACK, "u-1")}
        assert len({line["peer"] for line in of_tunnel}) == 1


OF_A_TUNNEL = ["tunnel opened", "tunnel fails", "tunnel closed"]


@pytest.mark.slow
async def test_all_processes_write_one_kind_of_line(world: World, proxy_as: RunAs) -> None:
    """netd killed, a reload with a fault, the server killed: each process has something to say."""
    with run_proxy(world, proxy_as) as proxy:
        async with raw_guest(proxy) as guest:
            await guest.echo(b"works")
            proxy.kill(proxy.one("netd"))
            await until(lambda: events(proxy, "the network helper is back"), "there is another one")
            proxy.reload()
            proxy.kill(proxy.one("server"))
            await until(lambda: not proxy.is_running(), "it has ended")
    lines = logevents.check(proxy.log)
    said = {(line["component"], line["event"]) for line in lines}
    assert ("server", "the network helper ended") in said
    (netd,) = (line for line in lines if line["event"] == "netd ended")
    (server,) = (line for line in lines if line["event"] == "server ended")
    assert (netd["component"], netd["signal"], netd["level"]) == ("launch", "SIGKILL", "error")
    assert (server["component"], server["signal"]) == ("launch", "SIGKILL")


@pytest.mark.slow
async def test_level_counts_for_every_process(world: World, proxy_as: RunAs) -> None:
    with run_proxy(world, proxy_as, {"AERO_L2_LOG_LEVEL": "error"}, ready=True) as proxy:
        async with proxy.tunnel():
            proxy.kill(proxy.one("netd"))
            await until(lambda: '"netd ended"' in proxy.log, "it is in the log")
    assert {line["level"] for line in logevents.check(proxy.log)} == {"error"}


# What a stranger might like to see in the log, or at the terminal of whoever reads it. NEL and the
# separators end a line for some readers; bidi overrides turn what follows around.
HOSTILE = (
    '"}\\n{"event":"forged"}',
    "\x1b]0;pwned\x07\x1b[2J\x9b31m",
    "a\u0085b\u2028c\u2029d\u202ee\u200bf\U0001f40d",
    "x" * 5000,
    "%0d%0aevent=forged",
    "\u00fc\u00ff\u00fe",
)
SIDS = (*HOSTILE, "a\nlevel=error event=forged\r\n2025-01-01 [error] forged", "\x00\x7f")


@contextlib.contextmanager
def said_to(proxy: Proxy) -> Iterator[list[bytes]]:
    """Requests to send as they are; each gets an answer, or the connection's end."""
    requests: list[bytes] = []
    yield requests
    for request in requests:
        with proxy.world.host.connect(at.LOOPBACK, proxy.port) as connection:
            connection.settimeout(30)
            connection.sendall(request)
            with contextlib.suppress(ConnectionResetError):
                connection.recv(65536)


def upgrade(path: str = "/l2", **fields: str) -> bytes:
    lines = {
        "Host": "x",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "aero-l2-tunnel-v1",
        "Origin": PAGE,
        **{name.replace("_", "-"): value for name, value in fields.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"GET {path} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "surrogatepass")


def attack(proxy: Proxy) -> None:
    with said_to(proxy) as requests:
        for text in HOSTILE:
            requests += [
                upgrade(Origin=text, Cookie=cookie("u-1")),
                upgrade(Host=text, Cookie=cookie("u-1")),
                upgrade(Cookie=f"aero_session={text}"),
                upgrade(Sec_WebSocket_Protocol=f"aero-l2-tunnel-v1, aero-l2-token.{text}"),
                upgrade(X_Forwarded_For=text, Forwarded=f'for="{text}"'),
                upgrade(User_Agent=text, Authorization=f"Bearer {text}"),
                upgrade(f"/l2?{text}"),
                upgrade(f"/{text}"),
                f"{text} / HTTP/1.1\r\n\r\n".encode(),
                f"GET /l2 {text}\r\n\r\n".encode(),
                f"GET / HTTP/1.1\r\n{text}: 1\r\n\r\n".encode(),
            ]
        requests += [upgrade(Cookie=cookie(sid), Origin="https://other.example") for sid in SIDS]


HOSTILE_ENV = {
    **ENV,
    "AERO_L2_TRUST_PROXY": "1",
    "AERO_L2_LOG_LEVEL": "debug",
}


@pytest.mark.slow
async def test_nobody_forges_a_line_of_json(world: World, proxy_as: RunAs) -> None:
    with run_proxy(world, proxy_as, HOSTILE_ENV) as proxy:
        await asyncio.to_thread(attack, proxy)
        for sid in SIDS:
            async with proxy.tunnel(headers=headers(sid)):
                pass
        last = len(SIDS)
        await until(lambda: len(events(proxy, "tunnel closed")) >= last, "all are in the log")
    lines = logevents.check(proxy.log)
    assert proxy.log.isascii()
    assert "forged" not in {line["event"] for line in lines}
    principals = [str(line["principal"]) for line in lines if line["event"] == "tunnel closed"]
    assert all(principal.isascii() and len(principal) <= 300 for principal in principals)
    assert {line["event"] for line in lines} >= {"upgrade refused", "request refused"}


QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
LINE_OF_WORDS = re.compile(r"\d\d:\d\d:\d\d\.\d{6} \[(debug|info|warning|error) +\] [a-zA-Z]")


@pytest.mark.slow
async def test_nobody_forges_a_line_of_words_nor_moves_the_cursor(world: World, proxy_as: RunAs) -> None:
    with run_proxy(world, proxy_as, {**HOSTILE_ENV, "AERO_L2_LOG_FORMAT": "console"}) as proxy:
        await asyncio.to_thread(attack, proxy)
        for sid in SIDS:
            async with proxy.tunnel(headers=headers(sid)):
                pass
        wait_until(lambda: proxy.log.count(" tunnel closed ") >= len(SIDS), "all are in the log")
        proxy.kill(proxy.one("netd"))
        await until(lambda: "netd ended" in proxy.log, "launch says so")
    for line in proxy.log.split("\n")[:-1]:
        assert line.isprintable(), line
        assert LINE_OF_WORDS.match(line), line
        assert "forged" not in QUOTED.sub("", line), line
