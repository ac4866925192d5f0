"""Every way to be refused at the door, on the real proxy: each counts once, and no series is ever added."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import pytest
from support import addresses as at
from support.counting import Counting
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import raw_guest
from support.wait import until
from support.world import World

KEY = "a-key-0123456789abcdef"
SECRET = "a-secret-0123456789abcdef0123456789"
ORIGIN, HOST = "https://page.test", "proxy.test"
REJECTED = "l2_upgrade_rejected_total"


def reject(reason: str) -> str:
    return f"l2_upgrade_reject_{reason}_total"


def unauthorized(kind: str, reason: str) -> dict[str, float]:
    """What a 401 moves."""
    names = (REJECTED, "l2_auth_failures_total", reject(kind), f'l2_auth_reject_total{{reason="{reason}"}}')
    return dict.fromkeys(names, 1.0)


def _encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _signed(text: str) -> str:
    signature = hmac.digest(SECRET.encode(), text.encode(), hashlib.sha256)
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def jwt(sid: str, **claims: object) -> str:
    now = int(time.time())
    payload = {"sid": sid, "iat": now, "exp": now + 600, **claims}
    return _signed(f"{_encoded({'alg': 'HS256'})}.{_encoded(payload)}")


def cookie(sid: str) -> str:
    return f"aero_session={_signed(_encoded({'v': 1, 'sid': sid, 'exp': time.time() + 600}))}"


def upgrade(
    proxy: Proxy, *fields: str, path: str = "/l2", host: str | None = HOST, method: str = "GET"
) -> int:
    """The status that answers a handshake with these fields; the connection is closed then."""
    lines = [
        f"{method} {path} HTTP/1.1",
        *([f"Host: {host}"] if host is not None else []),
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: aero-l2-tunnel-v1",
        *fields,
    ]
    with proxy.world.host.connect(at.LOOPBACK, proxy.port) as sock:
        sock.settimeout(30)
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        return int(sock.recv(4096).split()[1])


@contextmanager
def guarded(world: World, proxy_as: RunAs, **settings: str) -> Iterator[Proxy]:
    with run_proxy(world, proxy_as, {"AERO_L2_OPEN": "", **settings}) as proxy:
        yield proxy


async def test_credentials_origin_and_host(world: World, proxy_as: RunAs) -> None:
    settings = {
        "AERO_L2_AUTH_MODE": "token",
        "AERO_L2_API_KEY": KEY,
        "AERO_L2_ALLOWED_ORIGINS": ORIGIN,
        "AERO_L2_ALLOWED_HOSTS": HOST,
    }
    good, path = f"Origin: {ORIGIN}", f"/l2?token={KEY}"
    with guarded(world, proxy_as, **settings) as proxy:
        for wanted, ask in (
            (unauthorized("auth_missing", "missing_credentials"), lambda: upgrade(proxy, good)),
            (
                unauthorized("auth_invalid", "invalid_api_key"),
                lambda: upgrade(proxy, good, path="/l2?token=x"),
            ),
            ({reject("origin_missing"): 1.0}, lambda: upgrade(proxy, path=path)),
            (
                {reject("origin_not_allowed"): 1.0},
                lambda: upgrade(proxy, "Origin: https://x.test", path=path),
            ),
            ({reject("host_missing"): 1.0}, lambda: upgrade(proxy, good, path=path, host=None)),
            ({reject("host_invalid"): 1.0}, lambda: upgrade(proxy, good, path=path, host="a b")),
            ({reject("host_not_allowed"): 1.0}, lambda: upgrade(proxy, good, path=path, host="x.test")),
        ):
            counting = Counting(proxy)
            assert ask() in (401, 403)
            await counting.exactly({REJECTED: 1, **wanted})


async def test_cookies_jwts_and_tunnels_of_a_session(world: World, proxy_as: RunAs) -> None:
    settings = {
        "AERO_L2_AUTH_MODE": "cookie_or_jwt",
        "AERO_L2_SESSION_SECRET": SECRET,
        "AERO_L2_JWT_SECRET": SECRET,
        "AERO_L2_ALLOWED_ORIGINS": "*",
        "AERO_L2_MAX_CONNECTIONS_PER_SESSION": "1",
    }
    origin = f"Origin: {ORIGIN}"
    with guarded(world, proxy_as, **settings) as proxy:
        counting = Counting(proxy)
        assert upgrade(proxy, origin, path="/l2?token=a.b.c") == 401
        await counting.exactly(unauthorized("auth_invalid", "invalid_jwt"))
        counting = Counting(proxy)
        assert upgrade(proxy, origin, f"Authorization: Bearer {jwt('me', origin='https://x.test')}") == 401
        await counting.exactly(unauthorized("auth_invalid", "jwt_origin_mismatch"))
        counting = Counting(proxy)
        assert upgrade(proxy, origin, "Cookie: aero_session=x.y") == 401
        await counting.exactly(unauthorized("auth_invalid", "invalid_cookie"))
        async with proxy.tunnel(headers={"Origin": ORIGIN, "Cookie": cookie("me")}):
            counting = Counting(proxy, "aero_l2_setup_")
            assert upgrade(proxy, origin, f"Authorization: Bearer {jwt('me')}") == 429
            names = ("max_connections_per_session", "max_tunnels_per_session")
            denied = dict.fromkeys(map(reject, names), 1.0)
            await counting.exactly({REJECTED: 1, "l2_session_connection_denied_total": 1, **denied})


@pytest.mark.parametrize(
    ("setting", "value", "counter"),
    [
        ("AERO_L2_MAX_CONNECTIONS", "1", reject("max_connections")),
        ("AERO_L2_MAX_CONNECTIONS_PER_IP", "1", "l2_upgrade_ip_limit_exceeded_total"),
        ("AERO_L2_MAX_UPGRADES_PER_MINUTE_PER_IP", "1", reject("rate_limited")),
    ],
)
async def test_limits_of_tunnels(
    world: World, proxy_as: RunAs, setting: str, value: str, counter: str
) -> None:
    with run_proxy(world, proxy_as, {setting: value}) as proxy:
        async with proxy.tunnel() as tunnel:
            await tunnel.ping(b"open")
            await until(lambda: proxy.metric('aero_l2_setup_seconds_count{step="nat_ready"}') == 1, "the NAT")
            counting = Counting(proxy)
            for _ in range(3):
                assert upgrade(proxy) == 429
            await counting.exactly({REJECTED: 3, counter: 3})
            assert proxy.metric('aero_l2_capacity_used{limit="setting"}') == 1


async def test_hour_of_a_principal(world: World, proxy_as: RunAs) -> None:
    settings = {
        "AERO_L2_AUTH_MODE": "session",
        "AERO_L2_SESSION_SECRET": SECRET,
        "AERO_L2_ALLOWED_ORIGINS": "*",
        "AERO_L2_MAX_BYTES_PER_PRINCIPAL_HOUR": "1000",
    }
    headers = {"Origin": ORIGIN, "Cookie": cookie("me")}
    with guarded(world, proxy_as, **settings) as proxy:
        counting = Counting(proxy, "aero_l2_setup_", "l2_sessions_total")
        async with proxy.tunnel(headers=headers) as tunnel:
            await tunnel.send_message(b"\xa2\x03\x42\x00" + bytes(200))
            for _ in range(5):
                await tunnel.send_message(b"\xa2\x03\x42\x00" + bytes(200))
            assert (await tunnel.closed())[0] == 1008
        assert upgrade(proxy, f"Origin: {ORIGIN}", f"Cookie: {cookie('me')}") == 429
        await counting.exactly(
            {
                REJECTED: 1,
                reject("quota_bytes"): 1,
                "l2_sessions_closed_quota_bytes_total": 1,
                'aero_l2_sessions_closed_total{reason="hourly_byte_quota"}': 1,
            }
        )


async def test_what_is_shed_and_readiness(world: World, proxy_as: RunAs) -> None:
    with run_proxy(world, proxy_as, {"AERO_L2_DRAIN_MS": "600000"}) as proxy:
        async with proxy.tunnel():
            assert proxy.metric("aero_l2_ready") == 1
            proxy.terminate()
            await until(lambda: proxy.metric("aero_l2_ready") == 0, "it drains", 10)
            counting = Counting(proxy, "aero_l2_setup_")
            assert upgrade(proxy) == 503
            await counting.exactly({'aero_l2_upgrades_shed_total{reason="shutdown"}': 1})
        assert proxy.wait() == 0


async def test_cookies_that_are_issued_and_refused(world: World, proxy_as: RunAs) -> None:
    settings = {
        "AERO_L2_AUTH_MODE": "session",
        "AERO_L2_SESSION_SECRET": SECRET,
        "AERO_L2_ALLOWED_ORIGINS": ORIGIN,
        "AERO_L2_SESSION_ENDPOINT": "1",
        "AERO_L2_MAX_CONNECTIONS_PER_IP": "5",
    }
    with guarded(world, proxy_as, **settings) as proxy:
        counting = Counting(proxy)
        for origin, status in ((ORIGIN, 200), (ORIGIN, 200), ("https://x.test", 403)):
            fields = (f"Origin: {origin}", "Content-Length: 0")
            assert upgrade(proxy, *fields, path="/session", method="POST") == status
        await counting.exactly({"l2_session_cookies_issued_total": 2, "l2_session_cookies_refused_total": 1})


async def test_no_client_adds_a_series(world: World, proxy_as: RunAs) -> None:
    """Headers, paths, names, principals and frames of all kinds: the series are those of the start."""
    settings = {
        "AERO_L2_AUTH_MODE": "cookie_or_jwt",
        "AERO_L2_SESSION_SECRET": SECRET,
        "AERO_L2_JWT_SECRET": SECRET,
        "AERO_L2_ALLOWED_ORIGINS": "*",
        "AERO_L2_SESSION_ENDPOINT": "1",
        "AERO_L2_MAX_CONNECTIONS_PER_IP": "20",
        "AERO_L2_RAW_FRAMES": "1",
    }
    odd = ['"}', "\\", "é\xff", "x" * 200, "{a=1}", "..%2f", "0"]
    with guarded(world, proxy_as, **settings) as proxy:
        before = set(proxy.metrics())
        for text in odd:
            for fields in (
                (f"Origin: https://{text}.test",),
                (f"Cookie: aero_session={text}",),
                (f"Authorization: Bearer {text}",),
                (f"X-Forwarded-For: {text}", f"User-Agent: {text}", f"{text[:1]}-Odd: {text}"),
            ):
                for path in ("/l2", f"/{text}", f"/v86/{text}", "/metrics", f"/metrics?x={text}", "/session"):
                    for method in ("GET", "POST", "BREW"):
                        upgrade(proxy, *fields, path=path.replace(" ", ""), host=text, method=method)
        async with AsyncExitStack() as stack:
            for text in odd[:4]:
                headers = {"Origin": ORIGIN, "Cookie": cookie(f"sid {text}")}
                tunnel = await stack.enter_async_context(proxy.tunnel(headers=headers))
                for kind in range(256):
                    await tunnel.send_message(bytes((0xA2, 3, kind, kind)))
        assert set(proxy.metrics()) == before
    with run_proxy(world, proxy_as) as proxy:
        before = set(proxy.metrics())
        async with raw_guest(proxy) as guest:
            for kind in ("A", "TXT", "MX", "AXFR", "NULL"):
                for name in ("web.example.test", "none.test", "a" * 60 + ".test", "\x01odd.test"):
                    await guest.resolve(name, kind)
            assert set(proxy.metrics()) == before
