"""The checks on an upgrade: each one's answer, metrics and log line, and for every pair which comes first."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace

import pytest
from support.door import Stand, standing

from aero_l2.auth.jwt import JwtClaims, mint_jwt
from aero_l2.auth.session_token import SessionClaims, mint_session_token
from aero_l2.door.pressure import LATE
from aero_l2.observe.limit import BURST
from aero_l2.session.registry import Holder, PermitLimits, Permits

SECRET = "a secret of more than sixteen bytes"
GOOD_ORIGIN = "http://good.example"
SETTINGS = {
    "AERO_L2_OPEN": "0",
    "AERO_L2_AUTH_MODE": "session",
    "AERO_L2_SESSION_SECRET": SECRET,
    "AERO_L2_ALLOWED_ORIGINS": GOOD_ORIGIN,
    "AERO_L2_ALLOWED_HOSTS": "good.example",
    "AERO_L2_RAW_FRAMES": "1",
}
REJECTED = "l2_upgrade_rejected_total"
REASONED = ("l2_auth_failures_total", "l2_upgrade_reject_auth_missing_total", REJECTED)


@dataclass
class Client:
    """A request that would be let in, and what is held meanwhile; each check below spoils one thing."""

    stand: Stand
    stack: AsyncExitStack
    headers: dict[str, str] = field(default_factory=dict)
    sid: str = "me"
    path: str = "/l2"

    def __post_init__(self) -> None:
        token = mint_session_token(SessionClaims(self.sid, time.time() + 60), SECRET.encode())
        self.headers = {
            "Host": "good.example",
            "Origin": GOOD_ORIGIN,
            "Cookie": f"aero_session={token}",
            "Sec-WebSocket-Protocol": "aero-l2-tunnel-v1",
        }

    def hold(self, holder: Holder, **limit: int) -> None:
        """Reach a limit by a permit of somebody's."""
        permits = self.stand.door.tunnels.permits
        permits.limits = replace(permits.limits, **limit)
        self.stack.enter_context(holding(permits, holder))

    async def ask(self) -> tuple[int, str]:
        """Status and body; a tunnel counts as 101."""
        fields = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        request = (
            f"GET {self.path} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
        )
        reader, writer = await self.stand.raw()
        writer.write(request.encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status = int(head.split()[1])
        body = "" if status == 101 else (await reader.read()).decode()
        writer.close()
        return status, body


@contextmanager
def holding(permits: Permits, holder: Holder) -> Iterator[None]:
    """A permit that is held whatever the limits are."""
    limits, permits.limits = permits.limits, PermitLimits()
    with permits.take(holder):
        permits.limits = limits
        yield


def draining(client: Client) -> None:
    client.stand.door.endpoints.draining = True


def too_often(client: Client) -> None:
    client.stand.door.attempts.per_minute = 1
    client.stand.door.attempts.allow("127.0.0.1", time.monotonic())


def too_late(client: Client) -> None:
    client.stand.door.pressure.too_late = lambda: LATE  # type: ignore[method-assign]


def no_subprotocol(client: Client) -> None:
    del client.headers["Sec-WebSocket-Protocol"]


def no_credentials(client: Client) -> None:
    del client.headers["Cookie"]


def bad_origin(client: Client) -> None:
    client.headers["Origin"] = "http://evil.example"


def bad_host(client: Client) -> None:
    client.headers["Host"] = "evil.example"


def full_client(client: Client) -> None:
    client.hold(Holder("127.0.0.1"), client=1)


def full_process(client: Client) -> None:
    client.hold(Holder("192.0.2.9"), process=1)


def full_session(client: Client) -> None:
    client.hold(Holder("192.0.2.9", client.sid), principal=1)


def no_room(client: Client) -> None:
    client.stand.door.tunnels.setups.room = lambda: "no memory"


def no_segment(client: Client) -> None:
    client.stand.opener.refuse = "slirp4netns is missing"


@dataclass(frozen=True)
class Check:
    spoil: Callable[[Client], None]
    status: int
    body: str
    metrics: tuple[str, ...] = ()
    label: str = ""


CHECKS = (
    Check(draining, 503, "shutting down"),
    Check(too_often, 429, "too many upgrade attempts", (REJECTED, "l2_upgrade_reject_rate_limited_total")),
    Check(too_late, 503, LATE),
    Check(no_subprotocol, 400, 'missing required websocket subprotocol "aero-l2-tunnel-v1"'),
    Check(no_credentials, 401, "missing or expired session", REASONED, "missing_credentials"),
    Check(
        bad_origin,
        403,
        "Origin not allowed: http://evil.example",
        (REJECTED, "l2_upgrade_reject_origin_not_allowed_total"),
    ),
    Check(
        bad_host,
        403,
        "Host not allowed: evil.example",
        (REJECTED, "l2_upgrade_reject_host_not_allowed_total"),
    ),
    Check(
        full_client, 429, "max connections per ip exceeded", (REJECTED, "l2_upgrade_ip_limit_exceeded_total")
    ),
    Check(
        full_process, 429, "max connections exceeded", (REJECTED, "l2_upgrade_reject_max_connections_total")
    ),
    Check(
        full_session,
        429,
        "quota_connections: max connections per session exceeded",
        (
            REJECTED,
            "l2_session_connection_denied_total",
            "l2_upgrade_reject_max_connections_per_session_total",
            "l2_upgrade_reject_max_tunnels_per_session_total",
        ),
    ),
    Check(no_room, 503, "no memory"),
    Check(no_segment, 503, "slirp4netns is missing"),
)


@asynccontextmanager
async def visiting(**more: str) -> AsyncIterator[Client]:
    async with standing(**SETTINGS | more) as stand, AsyncExitStack() as stack:
        yield Client(stand, stack)


def rejections(stand: Stand) -> dict[str, float]:
    """Every counter of refusals that is not 0, labels included."""
    words = ("reject", "limit_exceeded", "denied", "auth")
    return {
        ":".join((sample.name, *sample.labels.values())): sample.value
        for metric in stand.metrics.registry.collect()
        for sample in metric.samples
        if sample.value and any(word in sample.name for word in words)
    }


async def expect(client: Client, check: Check) -> None:
    """The answer and the counters of a refusal, and no others."""
    assert await client.ask() == (check.status, check.body)
    expected = dict.fromkeys(check.metrics, 1.0)
    if check.label:
        expected[f"l2_auth_reject_total:{check.label}"] = 1.0
    assert rejections(client.stand) == expected


async def test_good_request_is_let_in() -> None:
    async with visiting() as client:
        assert await client.ask() == (101, "")
        assert rejections(client.stand) == {}


RAW_CHECKS = tuple(check for check in CHECKS if check.spoil is not no_subprotocol)


@pytest.mark.parametrize(
    ("path", "check"),
    [*(("/l2", check) for check in CHECKS), *(("/v86", check) for check in RAW_CHECKS)],
    ids=lambda value: value.spoil.__name__ if isinstance(value, Check) else value,
)
async def test_each_refusal_has_its_body_its_metrics_and_its_log_line(
    path: str, check: Check, capsys: pytest.CaptureFixture[str]
) -> None:
    async with visiting() as client:
        client.path = path
        check.spoil(client)
        await expect(client, check)
    lines = [line for line in capsys.readouterr().out.splitlines() if "upgrade refused" in line]
    assert len(lines) == 1
    assert check.body in lines[0].replace("\\", "")
    assert f"status={check.status}" in lines[0]
    assert "client=127.0.0.1" in lines[0]


def header(name: str, value: str | None) -> Callable[[Client], None]:
    """Send another header than the one that would be let in, or none."""

    def spoil(client: Client) -> None:
        client.headers.pop(name, None)
        if value is not None:
            client.headers[name] = value

    return spoil


def twice(name: str) -> Callable[[Client], None]:
    """Send the header of that name once more."""
    return lambda client: client.headers.update({name.lower(): client.headers[name]})


def expired(client: Client) -> None:
    token = mint_session_token(SessionClaims("me", time.time() - 1), SECRET.encode())
    client.headers["Cookie"] = f"aero_session={token}"


INVALID = ("l2_auth_failures_total", "l2_upgrade_reject_auth_invalid_total", REJECTED)
NO_SESSION = "missing or expired session"
VARIANTS = {
    "cookie expired": Check(expired, 401, NO_SESSION, INVALID, "invalid_cookie"),
    "cookie malformed": Check(header("Cookie", "aero_session=x"), 401, NO_SESSION, INVALID, "invalid_cookie"),
    "cookie empty": Check(
        header("Cookie", "aero_session="), 401, NO_SESSION, REASONED, "missing_credentials"
    ),
    "no Origin": Check(
        header("Origin", None),
        403,
        "missing Origin header",
        (REJECTED, "l2_upgrade_reject_origin_missing_total"),
    ),
    "empty Origin": Check(
        header("Origin", ""),
        403,
        "missing Origin header",
        (REJECTED, "l2_upgrade_reject_origin_missing_total"),
    ),
    "two Origins": Check(
        twice("Origin"),
        403,
        "invalid Origin header: multiple values",
        (REJECTED, "l2_upgrade_reject_origin_not_allowed_total"),
    ),
    "no origin at all": Check(
        header("Origin", "nonsense"),
        403,
        "invalid Origin header: nonsense",
        (REJECTED, "l2_upgrade_reject_origin_not_allowed_total"),
    ),
    "no Host": Check(
        header("Host", None), 403, "missing Host header", (REJECTED, "l2_upgrade_reject_host_missing_total")
    ),
    "malformed Host": Check(
        header("Host", "a b"),
        403,
        "malformed Host header",
        (REJECTED, "l2_upgrade_reject_host_invalid_total"),
    ),
}


@pytest.mark.parametrize("check", VARIANTS.values(), ids=VARIANTS)
async def test_each_way_to_fail_a_check_has_its_own_words_and_counters(
    check: Check, capsys: pytest.CaptureFixture[str]
) -> None:
    async with visiting() as client:
        check.spoil(client)
        await expect(client, check)
    assert check.body in capsys.readouterr().out


MODES = {
    "api key": (
        {"AERO_L2_AUTH_MODE": "token", "AERO_L2_API_KEY": "k" * 20},
        "invalid token",
        "invalid_api_key",
    ),
    "jwt": ({"AERO_L2_AUTH_MODE": "jwt", "AERO_L2_JWT_SECRET": "j" * 20}, "invalid jwt", "invalid_jwt"),
    "session or token": (
        {"AERO_L2_AUTH_MODE": "session_or_token", "AERO_L2_API_KEY": "k" * 20},
        "missing or invalid auth",
        "invalid_api_key",
    ),
    "session and token": (
        {"AERO_L2_AUTH_MODE": "session_and_token", "AERO_L2_API_KEY": "k" * 20},
        "missing or invalid auth",
        "invalid_api_key",
    ),
    "cookie or jwt": (
        {"AERO_L2_AUTH_MODE": "cookie_or_jwt", "AERO_L2_JWT_SECRET": "j" * 20},
        "invalid jwt",
        "invalid_jwt",
    ),
}


@pytest.mark.parametrize(("more", "text", "reason"), MODES.values(), ids=MODES)
async def test_each_mode_says_its_own_words(more: dict[str, str], text: str, reason: str) -> None:
    async with visiting(**more) as client:
        del client.headers["Cookie"]
        client.headers["Sec-WebSocket-Protocol"] += ", aero-l2-token.wrong"
        await expect(client, Check(draining, 401, text, INVALID, reason))


async def test_jwt_of_another_origin_is_told_apart() -> None:
    secret = "j" * 20
    mode = {"AERO_L2_AUTH_MODE": "jwt", "AERO_L2_JWT_SECRET": secret}
    async with visiting(**mode) as client:
        now = int(time.time())
        claims = JwtClaims(iat=now, exp=now + 60, sid="me", origin="http://other.example")
        client.headers["Authorization"] = f"Bearer {mint_jwt(claims, secret.encode())}"
        await expect(client, Check(draining, 401, "invalid jwt", INVALID, "jwt_origin_mismatch"))


async def test_lines_about_ever_new_origins_are_limited(capsys: pytest.CaptureFixture[str]) -> None:
    async with visiting() as client:
        for number in range(BURST + 20):
            client.headers["Origin"] = f"http://evil{number}.example"
            assert (await client.ask())[0] == 403
        await client.stand.door.close()
    lines = [line for line in capsys.readouterr().out.splitlines() if "upgrade refused" in line]
    assert len(lines) == BURST + 1


@pytest.mark.parametrize(
    ("first", "second"),
    list(itertools.combinations(CHECKS, 2)),
    ids=lambda check: check.spoil.__name__,
)
async def test_of_two_failing_checks_the_earlier_answers(first: Check, second: Check) -> None:
    async with visiting() as client:
        for check in (first, second):
            check.spoil(client)
        assert await client.ask() == (first.status, first.body)


async def test_v86_needs_no_subprotocol() -> None:
    async with visiting() as client:
        client.path = "/v86"
        no_subprotocol(client)
        assert await client.ask() == (101, "")


@pytest.mark.parametrize(
    ("first", "second"),
    list(itertools.combinations(RAW_CHECKS, 2)),
    ids=lambda check: check.spoil.__name__,
)
async def test_checks_on_v86_come_in_the_same_order(first: Check, second: Check) -> None:
    async with visiting() as client:
        client.path = "/v86"
        no_subprotocol(client)
        for check in (first, second):
            check.spoil(client)
        assert await client.ask() == (first.status, first.body)
