"""POST /session: who gets a cookie, what it says, and that a tunnel opens with it."""

from __future__ import annotations

import json
import time

import pytest
from support.door import OFFER, UPGRADE, Stand, standing

from aero_l2.auth.session_token import SessionClaims, mint_session_token, verify_session_token

SECRET = "a secret of more than sixteen bytes"
PREVIOUS = "the one before, as long as that"
ORIGIN = "http://good.example"
SETTINGS = {
    "AERO_L2_OPEN": "0",
    "AERO_L2_SESSION_SECRET": SECRET,
    "AERO_L2_ALLOWED_ORIGINS": ORIGIN,
    "AERO_L2_SESSION_ENDPOINT": "1",
    "AERO_L2_MAX_CONNECTIONS_PER_IP": "4",
    "AERO_L2_SESSION_TTL_SECS": "120",
}
Answer = tuple[int, dict[str, str], bytes]


async def post(stand: Stand, *lines: str, method: str = "POST", origin: str | None = ORIGIN) -> Answer:
    fields = (*lines, *([f"Origin: {origin}"] if origin is not None else []))
    head = f"{method} /session HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
    return await stand.ask(head + "".join(f"{line}\r\n" for line in fields) + "\r\n")


def sid_of(cookie: str) -> str:
    token = cookie.removeprefix("aero_session=").partition(";")[0]
    return verify_session_token(token, (SECRET.encode(),), time.time()).sid


async def test_it_is_off_by_default() -> None:
    async with standing() as stand:
        assert (await post(stand))[0] == 404


async def test_allowed_origin_gets_a_cookie_that_opens_a_tunnel() -> None:
    async with standing(**SETTINGS) as stand:
        status, headers, body = await post(stand)
        assert status == 200
        assert headers["content-type"] == "application/json"
        assert headers["access-control-allow-origin"] == ORIGIN
        assert headers["access-control-allow-credentials"] == "true"
        assert headers["vary"] == "Origin"
        answer = json.loads(body)
        assert answer["endpoints"] == {"l2": "/l2"}
        assert answer["limits"] == {"l2": {"maxFramePayloadBytes": 2048, "maxControlPayloadBytes": 256}}
        cookie, *attributes = headers["set-cookie"].split("; ")
        assert attributes == ["Max-Age=120", "Path=/", "HttpOnly", "SameSite=Lax"]
        more = OFFER + f"Origin: {ORIGIN}\r\nCookie: {cookie}\r\n"
        reader, writer = await stand.raw()
        writer.write(UPGRADE.format(path="/l2", more=more).encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.close()


async def test_every_page_gets_its_own_id_and_keeps_it() -> None:
    async with standing(**SETTINGS) as stand:
        first, second = [(await post(stand))[1]["set-cookie"] for _ in range(2)]
        assert sid_of(first) != sid_of(second)
        again = (await post(stand, "Cookie: " + first.partition(";")[0]))[1]["set-cookie"]
        assert sid_of(again) == sid_of(first)


@pytest.mark.parametrize(
    ("sid", "key"),
    [("alice", SECRET), ("anonymous-1", "another secret"), ("anonymous-1", PREVIOUS)],
    ids=["issued elsewhere", "forged", "of the previous secret"],
)
async def test_cookie_that_is_not_ours_is_not_prolonged(sid: str, key: str) -> None:
    async with standing(**SETTINGS, AERO_L2_SESSION_SECRET_PREVIOUS=PREVIOUS) as stand:
        token = mint_session_token(SessionClaims(sid, time.time() + 60), key.encode())
        assert sid_of((await post(stand, f"Cookie: aero_session={token}"))[1]["set-cookie"]) != sid


@pytest.mark.parametrize(
    ("origin", "text"),
    [
        (None, b"missing Origin header"),
        ("http://evil.example", b"Origin not allowed: http://evil.example"),
        ("nonsense", b"invalid Origin header: nonsense"),
        ("null", b"Origin not allowed: null"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "OPTIONS"])
async def test_other_origins_get_nothing(method: str, origin: str | None, text: bytes) -> None:
    async with standing(**SETTINGS) as stand:
        status, headers, body = await post(stand, method=method, origin=origin)
        assert (status, body) == (403, text)
        assert not any(name.startswith("access-control") or name == "set-cookie" for name in headers)


async def test_preflight_is_answered_without_a_cookie() -> None:
    async with standing(**SETTINGS) as stand:
        asked = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type")
        status, headers, body = await post(stand, *asked, method="OPTIONS")
        assert (status, body) == (204, b"")
        assert headers["access-control-allow-origin"] == ORIGIN
        assert headers["access-control-allow-credentials"] == "true"
        assert headers["access-control-allow-methods"] == "POST"
        assert headers["access-control-allow-headers"] == "Content-Type"
        assert "set-cookie" not in headers


async def test_other_methods_are_refused() -> None:
    async with standing(**SETTINGS) as stand:
        status, headers, _ = await post(stand, method="GET")
        assert (status, headers["allow"]) == (405, "POST, OPTIONS")


async def test_wrong_host_is_refused() -> None:
    async with standing(**SETTINGS, AERO_L2_ALLOWED_HOSTS="good.example") as stand:
        status, _, body = await post(stand)
        assert (status, body) == (403, b"Host not allowed: x")


async def test_requests_are_limited_by_client() -> None:
    async with standing(**SETTINGS, AERO_L2_MAX_SESSIONS_PER_MINUTE_PER_IP="2") as stand:
        statuses = [(await post(stand))[0] for _ in range(3)]
        assert statuses == [200, 200, 429]
        _, headers, body = await post(stand)
        assert body == b"too many session requests"
        assert headers["retry-after"] == "30"


async def test_cookie_is_secure_behind_tls() -> None:
    async with standing(**SETTINGS, AERO_L2_TRUST_PROXY_HOST="1") as stand:
        _, headers, _ = await post(stand, "X-Forwarded-Proto: https")
        assert headers["set-cookie"].endswith("; Secure")
    async with standing(**SETTINGS) as stand:
        assert "Secure" not in (await post(stand, "X-Forwarded-Proto: https"))[1]["set-cookie"]


async def test_body_is_not_needed_and_not_kept() -> None:
    async with standing(**SETTINGS) as stand:
        head = f"POST /session HTTP/1.1\r\nHost: x\r\nOrigin: {ORIGIN}\r\nContent-Length: 3000000\r\n\r\n"
        assert (await stand.ask(head.encode() + bytes(3_000_000)))[0] == 200


async def test_no_cookies_while_shutting_down() -> None:
    async with standing(**SETTINGS) as stand:
        stand.door.endpoints.draining = True
        status, headers, body = await post(stand)
        assert (status, body) == (503, b"shutting down")
        assert "set-cookie" not in headers


async def test_cookies_and_refusals_are_counted_and_refusals_logged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with standing(**SETTINGS, AERO_L2_MAX_SESSIONS_PER_MINUTE_PER_IP="1") as stand:
        await post(stand)
        await post(stand)
        await post(stand, origin="http://evil.example")
        await post(stand, method="OPTIONS")
        assert stand.value("l2_session_cookies_issued_total") == 1
        assert stand.value("l2_session_cookies_refused_total") == 2
    lines = [line for line in capsys.readouterr().out.splitlines() if "session refused" in line]
    assert len(lines) == 2
    assert "too many session requests" in lines[0]
    assert "Origin not allowed: http://evil.example" in lines[1]
