"""The host's wall clock is stepped: credentials follow it, and nothing else does."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import addresses as at
from support.clock import WallClock
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import RawGuest
from support.tunnel import RefusedError, Tunnel
from support.wait import until
from support.world import World

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("proxy_as", ["user"], indirect=True),  # who started it makes no difference here
]

HOUR, DAY = 3600, 86_400
SECRET = "a-secret-0123456789abcdef"
UPGRADE_S = 2.0
LOOK_S = 30.0  # how often an open tunnel's expiry is looked at
TTL_S = 120
SETTINGS = {
    "AERO_L2_AUTH_MODE": "cookie_or_jwt",
    "AERO_L2_JWT_SECRET": SECRET,
    "AERO_GATEWAY_SESSION_SECRET": SECRET,
    "AERO_L2_CLOSE_ON_EXPIRY": "1",
    "AERO_L2_UPGRADE_TIMEOUT_MS": str(int(UPGRADE_S * 1000)),
}


@dataclass
class Stepped:
    """A proxy and its clock."""

    proxy: Proxy
    clock: WallClock

    def tunnel(self, kind: str, expires_in_s: int) -> Tunnel:
        """With a credential that is valid until then by the machine's clock."""
        token = TOKENS[kind](int(time.time()) + expires_in_s)
        if kind == "cookie":
            return self.proxy.tunnel(headers={"Cookie": f"aero_session={token}"})
        return self.proxy.tunnel(credential=token)


@pytest.fixture
def stepped(world: World, proxy_as: RunAs, tmp_path: Path) -> Iterator[Stepped]:
    clock = WallClock(tmp_path)
    with run_proxy(world, proxy_as, SETTINGS, before=clock.prepare) as proxy:
        yield Stepped(proxy, clock)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _signed(text: str) -> str:
    return f"{text}.{_base64url(hmac.digest(SECRET.encode(), text.encode(), hashlib.sha256))}"


def _part(**fields: object) -> str:
    return _base64url(json.dumps(fields).encode())


TOKENS = {
    "cookie": lambda expires: _signed(_part(v=1, sid="somebody", exp=expires)),
    "jwt": lambda expires: _signed(
        f"{_part(alg='HS256')}.{_part(sid='somebody', iat=expires - DAY, exp=expires)}"
    ),
}


async def _is_refused(tunnel: Tunnel) -> bool:
    try:
        async with tunnel:
            await tunnel.ping(b"open")
    except RefusedError as error:
        if error.status != 401:
            raise
        return True
    return False


async def _works_as_ever(guest: RawGuest) -> None:
    """Frames, the lease and what DNS remembers do not know the time of day."""
    await guest.echo(b"works")
    lease = await guest.dhcp()
    assert lease["lease_time"] == DAY
    answer = await guest.resolve("web.example.test")
    assert answer.rcode == 0
    assert 1 <= answer.an[0].ttl <= TTL_S


@pytest.mark.parametrize("kind", TOKENS)
async def test_clock_that_is_stepped_forward(stepped: Stepped, kind: str) -> None:
    async with stepped.tunnel(kind, HOUR) as short, stepped.tunnel(kind, 2 * DAY) as long:
        guest = RawGuest(long)
        await _works_as_ever(guest)
        stepped.clock.set(DAY)
        assert await _is_refused(stepped.tunnel(kind, HOUR))
        assert not await _is_refused(stepped.tunnel(kind, DAY + HOUR))
        await _works_as_ever(guest)
        assert await short.closed(5 * LOOK_S) == (1008, "session expired")
        await _works_as_ever(guest)
        assert long.is_open
    await until(lambda: not stepped.proxy.with_role("nat"), "all is undone")
    assert "Traceback" not in stepped.proxy.log


@pytest.mark.parametrize("kind", TOKENS)
async def test_clock_that_is_stepped_back(stepped: Stepped, kind: str) -> None:
    assert await _is_refused(stepped.tunnel(kind, -HOUR))
    async with stepped.tunnel(kind, HOUR) as tunnel:
        guest = RawGuest(tunnel)
        await _works_as_ever(guest)
        stepped.clock.set(-3 * DAY)
        assert not await _is_refused(stepped.tunnel(kind, -HOUR))
        await _works_as_ever(guest)
        await _assert_time_outs_work(stepped.proxy)
        stepped.clock.set(0)
        assert await _is_refused(stepped.tunnel(kind, -HOUR))
        await _works_as_ever(guest)
        assert tunnel.is_open
    await until(lambda: not stepped.proxy.with_role("nat"), "all is undone")
    assert "Traceback" not in stepped.proxy.log


async def _assert_time_outs_work(proxy: Proxy) -> None:
    connection = await asyncio.to_thread(proxy.world.host.connect, at.LOOPBACK, proxy.port)
    reader, writer = await asyncio.open_connection(sock=connection)
    writer.write(b"GET /l2 HTTP/1.1\r\n")
    assert (await asyncio.wait_for(reader.read(), 5 * UPGRADE_S)).startswith(b"HTTP/1.1 408 ")
    writer.close()
