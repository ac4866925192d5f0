"""The door of `/v86`: where it is, the credential in its path, and that nobody ever reads it anywhere."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import structlog
from support.door import OFFER, UPGRADE, Ready, Stand, settings, standing
from websockets.datastructures import Headers

from aero_l2.auth.credentials import UNREADABLE, read_credentials
from aero_l2.door.endpoints import BuildInfo, Endpoints, Tunnelled
from aero_l2.door.handshake import Upgrade
from aero_l2.door.http import RequestHead
from aero_l2.observe import log
from aero_l2.observe.metrics import Metrics
from aero_l2.web.forwarded import Via

KEY = "the-key-0123456789"
KEYED = {"AERO_L2_AUTH_MODE": "token", "AERO_L2_API_KEY": KEY, "AERO_L2_RAW_FRAMES": "1"}


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async with standing(AERO_L2_RAW_FRAMES="1") as it:
        yield it


@pytest.fixture
async def keyed() -> AsyncIterator[Stand]:
    async with standing(**KEYED) as it:
        yield it


async def answer(stand: Stand, path: str, more: str = "") -> str:
    """The head of the answer to an upgrade."""
    reader, writer = await stand.raw()
    writer.write(UPGRADE.format(path=path, more=more).encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    writer.close()
    return head.decode()


async def status(stand: Stand, path: str, more: str = "") -> int:
    return int((await answer(stand, path, more)).split()[1])


@pytest.mark.parametrize("path", ["/v86", "/v86/", "/v86/token", "/v86?token=x"])
async def test_it_is_off_unless_switched_on(path: str) -> None:
    async with standing() as stand:
        for request in (UPGRADE.format(path=path, more=""), f"GET {path} HTTP/1.1\r\n\r\n"):
            assert (await stand.ask(request))[::2] == (404, b"not found")
        assert not stand.opener.entered.is_set()


async def test_reload_switches_it_on_and_off_while_tunnels_stay(stand: Stand) -> None:
    client = await stand.raw_client()
    stand.door.apply(settings())
    assert await status(stand, "/v86") == 404
    stand.opener.only.wire.send(bytes(60))
    assert await asyncio.wait_for(client.recv(), 5) == bytes(60)
    stand.door.apply(settings(AERO_L2_RAW_FRAMES="1"))
    assert await status(stand, "/v86") == 101
    await client.close()


@pytest.mark.parametrize("path", ["/v86", "/v86/", "/v86/token", "/v86?token=x"])
async def test_what_is_no_upgrade_is_answered_as_on_the_other_tunnel_paths(stand: Stand, path: str) -> None:
    found = await stand.ask(f"GET {path} HTTP/1.1\r\n\r\n")
    assert found[::2] == (400, b"this is a WebSocket endpoint")
    for method in ("HEAD", "POST", "PUT"):
        code, headers, _ = await stand.ask(f"{method} {path} HTTP/1.1\r\n\r\n")
        assert (code, headers["allow"]) == (405, "GET")


@pytest.mark.parametrize("path", ["/v86x", "/v86/a/b", "/v86//", "/v86//a", "/v86/a/", "/V86", "/v86%2Fa"])
async def test_other_paths_are_nobodys_and_not_repeated(stand: Stand, path: str) -> None:
    assert (await stand.ask(UPGRADE.format(path=path, more="")))[::2] == (404, b"not found")


@pytest.mark.parametrize("offered", ["", OFFER, "Sec-WebSocket-Protocol: binary, aero-l2-token.x\r\n"])
async def test_no_subprotocol_is_agreed_on_whatever_is_offered(stand: Stand, offered: str) -> None:
    head = await answer(stand, "/v86", offered + "Sec-WebSocket-Extensions: permessage-deflate\r\n")
    assert head.startswith("HTTP/1.1 101 ")
    assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
    assert "protocol" not in head.lower().partition("switching protocols")[2]
    assert "extensions" not in head.lower()


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (f"/v86/{KEY}", ""),
        ("/v86/the%2Dkey-0123456789", ""),
        (f"/v86?token={KEY}", ""),
        (f"/v86/?token={KEY}", ""),
        (f"/v86?apiKey={KEY}", ""),
        ("/v86", f"Sec-WebSocket-Protocol: aero-l2-token.{KEY}\r\n"),
        (f"/v86/{KEY}?token=wrong", ""),
        (f"http://x/v86/{KEY}", ""),
    ],
)
async def test_key_is_taken_from_path_query_or_offer(keyed: Stand, path: str, more: str) -> None:
    assert await status(keyed, path, more) == 101


@pytest.mark.parametrize(
    ("path", "counted"),
    [
        ("/v86", "missing_credentials"),
        ("/v86/", "missing_credentials"),
        ("/v86/wrong", "invalid_api_key"),
        ("/v86/%", "invalid_api_key"),
        ("/v86/%zz", "invalid_api_key"),
        (f"/v86/%ff{KEY}", "invalid_api_key"),
        (f"/v86/wrong?token={KEY}", "invalid_api_key"),
    ],
)
async def test_wrong_or_missing_key_is_401(keyed: Stand, path: str, counted: str) -> None:
    assert (await keyed.ask(UPGRADE.format(path=path, more="")))[::2] == (401, b"invalid token")
    assert keyed.value("l2_auth_reject_total", reason=counted) == 1


async def test_key_in_the_path_of_l2_is_none(keyed: Stand) -> None:
    assert await status(keyed, f"/l2/{KEY}", OFFER) == 404


def test_credential_of_the_path_comes_first_of_all_in_the_address() -> None:
    headers = Headers()
    headers["Authorization"] = "Bearer b"
    headers["Sec-WebSocket-Protocol"] = "aero-l2-token.s"
    found = read_credentials("token=t&apiKey=k", headers, "p%2Bq")
    assert found.jwts == ("b", "p+q", "t", "k", "s")
    assert found.key == "p+q"
    assert read_credentials("token=t", headers, "%zz").key == UNREADABLE
    assert repr(read_credentials("", Headers(), "canary")) == "Credentials(path)"


# --- Nothing of the credential is seen -------------------------------------------------------------------

CANARY = "cAnArY7"
OPEN_V86 = {"AERO_L2_RAW_FRAMES": "1"}
PLACES = [f"/v86/{CANARY}", f"/v86?token={CANARY}", f"/v86/{CANARY}?apiKey={CANARY}", f"/v86/{CANARY}%zz"]
ODD = [f"/v86/{CANARY}/x", f"/v86//{CANARY}", f"/v86{CANARY}"]
SITUATIONS: dict[str, tuple[dict[str, str], str, int]] = {
    "wrong key": (KEYED, "", 401),
    "no such Origin": (OPEN_V86 | {"AERO_L2_OPEN": "0", "AERO_L2_AUTH_MODE": "none"}, "", 403),
    "other Host": (OPEN_V86 | {"AERO_L2_ALLOWED_HOSTS": "good.example"}, "", 403),
    "too often": (OPEN_V86 | {"AERO_L2_MAX_UPGRADES_PER_MINUTE_PER_IP": "1"}, "", 429),
    "malformed": (OPEN_V86, "Content-Length: 5\r\n", 400),
    "let in": (OPEN_V86, "", 101),
    "off": ({}, "", 404),
}


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """All that is logged, at the most talkative level, and printed."""
    lines = io.StringIO()
    log.configure("debug", "json", lines)

    def everything() -> str:
        printed = capsys.readouterr()
        return lines.getvalue() + printed.out + printed.err

    yield everything
    structlog.reset_defaults()
    logging.getLogger().handlers = []


@pytest.mark.parametrize(("variables", "more", "code"), SITUATIONS.values(), ids=SITUATIONS)
async def test_credential_in_the_address_is_seen_nowhere(
    said: Callable[[], str], variables: dict[str, str], more: str, code: int
) -> None:
    async with standing(**variables) as stand:
        asyncio.get_running_loop().set_debug(True)
        seen, codes = [], []
        for path in PLACES:
            seen.append(await answer(stand, path, more))
            codes.append(int(seen[-1].split()[1]))
        for path in (*PLACES, *ODD):
            plain = await stand.ask(f"GET {path} HTTP/1.1\r\n\r\n")
            seen.append(str(plain))
        stand.opener.refuse = "netd is gone"
        seen.append(await answer(stand, PLACES[0], more))
        stand.door.endpoints.draining = True
        seen.append(await answer(stand, PLACES[0], more))
        seen.append(str(await stand.ask("GET /metrics HTTP/1.1\r\n\r\n")))
    assert code in codes
    assert CANARY.lower() not in "".join([*seen, said()]).lower()


def test_what_is_known_of_a_request_shows_no_credential() -> None:
    head = RequestHead("GET", f"/v86/{CANARY}", f"token={CANARY}", "HTTP/1.1", Headers(Cookie=CANARY))
    found = Endpoints(BuildInfo("", "", ""), Metrics(), Ready(), raw_frames=True).tunnelled(head.path)
    assert found == Tunnelled("raw", CANARY)
    assert CANARY not in f"{head!r} {found!r} {Upgrade(head, Via('x', None, False, 'http'))!r}"
