"""A tunnel that is kept and taken up again, over real sockets: who gets it, what goes on, what ends it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from structlog.testing import capture_logs
from support.door import Stand, from_wire, standing
from support.resuming import (
    DEADLINE_S,
    KEPT,
    SESSION,
    back,
    begun,
    cookie,
    end_of,
    ends,
    greeting,
    lost,
    opened,
    ponged,
    resumes,
    until,
)
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from aero_l2 import tasks
from aero_l2.session.closing import Reason
from aero_l2.session.registry import PermitLimits
from aero_l2.session.tunnel import Tunnel
from aero_l2.wire.tunnel import encode

KEY = {"AERO_L2_API_KEY": "a-key-that-only-tests-know", "AERO_L2_AUTH_MODE": "token"}
FRAME = bytes(range(60))
MESSAGE = encode(0, FRAME)
GREETING_BYTES = 4 + 32 + 4 + 1


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async with standing(**KEPT) as it:
        yield it
    assert not tasks.running()


# --- Given back ------------------------------------------------------------------------------------------


async def test_lost_tunnel_is_given_back_with_its_segment(stand: Stand) -> None:
    client, secret = await begun(stand)
    segment = stand.opener.only
    await client.send(MESSAGE)
    assert await from_wire(stand) == FRAME
    await lost(stand, client)
    assert stand.door.active == 1
    assert stand.value("l2_sessions_active") == 1
    again, next_secret, is_resumed = await back(stand, secret)
    async with again:
        assert is_resumed
        assert next_secret != secret
        assert stand.opener.only is segment
        assert stand.value("aero_l2_sessions_kept") == 0
        await again.send(MESSAGE)
        assert await from_wire(stand) == FRAME
        segment.wire.send(FRAME)
        assert await again.recv() == MESSAGE
    await until(lambda: stand.door.active == 0, "released")
    assert resumes(stand) == (1, 0, 0)
    assert stand.value("l2_sessions_total") == 1
    assert ends(stand) == {"peer_closed": 1}


async def test_it_is_given_back_again_and_again_each_time_for_another_secret(stand: Stand) -> None:
    client, secret = await begun(stand)
    seen = {secret}
    for _ in range(10):
        await lost(stand, client)
        client, secret, is_resumed = await back(stand, secret)
        assert is_resumed
        assert secret not in seen
        seen.add(secret)
    await client.close()
    assert resumes(stand) == (10, 0, 0)


async def test_frames_meanwhile_are_dropped_and_counted(stand: Stand) -> None:
    client, secret = await begun(stand)
    await lost(stand, client)
    wire = stand.opener.only.wire
    for _ in range(5):
        wire.send(FRAME)
    await until(lambda: stand.value("l2_frames_dropped_total") == 5, "dropped")
    assert stand.value("l2_frames_tx_total") == 0
    again, _, _ = await back(stand, secret)
    async with again:
        wire.send(FRAME[::-1])
        assert await again.recv() == encode(0, FRAME[::-1])


async def test_secret_comes_first_whatever_else_the_server_has_to_say() -> None:
    async with standing(AERO_L2_PING_INTERVAL_MS="1000", **KEPT) as stand:
        client, secret = await begun(stand)
        assert await client.recv() == encode(1, (1).to_bytes(8, "big"))
        await lost(stand, client)
        again, _, is_resumed = await back(stand, secret)
        assert is_resumed
        assert await again.recv() == encode(1, (1).to_bytes(8, "big"))
        await again.close()


async def test_frame_right_behind_the_handshake_is_kept(stand: Stand) -> None:
    client, secret = await begun(stand)
    await lost(stand, client)
    reader, writer = await stand.raw()
    size = bytes([0x82, 0x80 | len(MESSAGE)]) + bytes(4)
    head = (
        "GET /l2 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Protocol: aero-l2-tunnel-v1, aero-l2-resume.{secret}\r\n\r\n"
    )
    writer.write(head.encode() + size + MESSAGE)
    await reader.readuntil(b"\r\n\r\n")
    assert await from_wire(stand) == FRAME
    assert stand.value("l2_sessions_total") == 1
    writer.close()


async def test_resume_takes_over_a_connection_that_only_seems_to_stand(stand: Stand) -> None:
    client, secret = await begun(stand)
    segment = stand.opener.only
    again, next_secret, is_resumed = await back(stand, secret)
    assert is_resumed
    assert (await end_of(client))[0] == 1006
    segment.wire.send(FRAME)
    assert await again.recv() == MESSAGE
    assert resumes(stand) == (0, 1, 0)
    assert stand.value("aero_l2_sessions_kept") == 0
    await lost(stand, again)
    third, _, is_resumed = await back(stand, next_secret)
    assert is_resumed
    await third.close()
    await until(lambda: stand.door.active == 0, "released")


async def test_takeover_of_a_client_that_does_not_read_goes_on_where_frames_flow(stand: Stand) -> None:
    client, secret = await begun(stand)
    tunnel = await _held_up(stand, client)
    again, _, is_resumed = await back(stand, secret)
    assert is_resumed
    assert not tunnel._lan.pump.is_paused
    await ponged(again)
    await again.close()
    client.transport.abort()


async def test_kept_tunnel_reads_on_where_its_client_had_stopped_reading(stand: Stand) -> None:
    client, secret = await begun(stand)
    wire = stand.opener.only.wire
    await _held_up(stand, client)
    await lost(stand, client)
    before = stand.value("l2_frames_dropped_total")
    await until(lambda: _sent(wire), "there is room")
    await until(lambda: stand.value("l2_frames_dropped_total") > before, "it is read and dropped")
    again, _, is_resumed = await back(stand, secret)
    assert is_resumed
    await again.close()


async def _held_up(stand: Stand, client: ClientConnection) -> Tunnel:
    """The client's tunnel, once it reads nothing more for it, since the client does not."""
    client.transport.pause_reading()
    tunnel = stand.door.tunnels.live[0]
    end = time.monotonic() + DEADLINE_S
    while not tunnel._lan.pump.is_paused:
        assert time.monotonic() < end
        with contextlib.suppress(BlockingIOError):
            stand.opener.only.wire.send(bytes(1514))
        await asyncio.sleep(0)
    return tunnel


def _sent(wire: socket.socket) -> bool:
    try:
        wire.send(FRAME)
    except BlockingIOError:
        return False
    return True


async def test_log_tells_who_was_kept_and_came_back_and_never_the_secret(stand: Stand) -> None:
    with capture_logs() as lines:
        client, secret = await begun(stand)
        await lost(stand, client)
        again, next_secret, _ = await back(stand, secret)
        await again.close()
        await until(lambda: stand.door.active == 0, "released")
    events = [line for line in lines if "session" in line]
    assert [line["event"] for line in events] == [
        "tunnel opened",
        "tunnel kept",
        "tunnel resumed",
        "tunnel closed",
    ]
    assert {line["session"] for line in events} == {1}
    assert events[1]["kept_for_s"] == 60
    assert events[2]["result"] == "resumed"
    assert events[2]["peer"] != events[1]["peer"]
    assert events[3]["peer"] == events[2]["peer"]
    assert secret not in repr(lines)
    assert next_secret not in repr(lines)


# --- Clients that know nothing of it ---------------------------------------------------------------------


async def test_plain_client_notices_nothing(stand: Stand) -> None:
    client = await opened(stand)
    stand.opener.only.wire.send(FRAME)
    assert await client.recv() == MESSAGE
    client.transport.abort()
    await until(lambda: stand.door.active == 0, "released")
    assert ends(stand) == {"peer_gone": 1}


async def test_where_it_is_off_the_offer_is_ignored() -> None:
    async with standing() as stand:
        for more in ("aero-l2-resume", "aero-l2-resume.abc"):
            client = await opened(stand, more)
            stand.opener.only.wire.send(FRAME)
            assert await client.recv() == MESSAGE
            client.transport.abort()
            await until(lambda: stand.door.active == 0, "released")
        assert ends(stand) == {"peer_gone": 2}


async def test_offer_alone_does_not_make_up_for_the_tunnels_protocol(stand: Stand) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(
            f"ws://127.0.0.1:{stand.door.port}/l2", subprotocols=[Subprotocol("aero-l2-resume")], proxy=None
        )
    assert refused.value.response.status_code == 400
    assert b"missing required websocket subprotocol" in (refused.value.response.body or b"")


async def test_raw_frames_are_never_kept() -> None:
    async with standing(AERO_L2_RAW_FRAMES="1", **KEPT) as stand:
        client = await stand.raw_client()
        stand.opener.only.wire.send(FRAME)
        assert await client.recv() == FRAME
        client.transport.abort()
        await until(lambda: stand.door.active == 0, "released")
        assert ends(stand) == {"peer_gone": 1}


# --- Never kept ------------------------------------------------------------------------------------------

Doing = Callable[[Stand, ClientConnection], Awaitable[object]]


async def closes(_: Stand, client: ClientConnection) -> None:
    await client.close()


async def is_malformed(_: Stand, client: ClientConnection) -> None:
    await client.send(b"\0\0\0\0")
    await end_of(client)


async def breaks_the_websocket(_: Stand, client: ClientConnection) -> None:
    client.transport.write(b"\x82\x01x")
    await end_of(client)


async def exceeds(_: Stand, client: ClientConnection) -> None:
    for _ in range(200):
        await client.send(MESSAGE)
    await end_of(client)


async def loses_its_nat(stand: Stand, client: ClientConnection) -> None:
    stand.opener.only.failed.set_result("slirp4netns died of signal 9")
    await end_of(client)


async def leaves_while_it_is_closed(stand: Stand, client: ClientConnection) -> None:
    stand.door.tunnels.live[0].close(Reason.IDLE_TIMEOUT)
    client.transport.abort()


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        (closes, "peer_closed"),
        (is_malformed, "malformed_message"),
        (breaks_the_websocket, "websocket_failed"),
        (exceeds, "byte_quota"),
        (loses_its_nat, "tunnel_failed"),
        (leaves_while_it_is_closed, "idle_timeout"),
    ],
)
async def test_what_ends_in_another_way_is_not_kept_and_not_given_back(does: Doing, reason: str) -> None:
    async with standing(AERO_L2_MAX_BYTES_PER_CONNECTION="5000", **KEPT) as stand:
        client, secret = await begun(stand)
        await does(stand, client)
        await until(lambda: stand.door.active == 0, "released")
        assert ends(stand) == {reason: 1}
        again, _, is_resumed = await back(stand, secret)
        assert not is_resumed
        await again.close()
        assert resumes(stand) == (0, 0, 1)


async def test_client_that_takes_nothing_is_dropped_and_kept() -> None:
    """As one looks that vanished in the middle of a download."""
    async with standing(AERO_L2_SEND_STALL_TIMEOUT_MS="300", **KEPT) as stand:
        client, secret = await begun(stand)
        client.transport.pause_reading()

        def is_kept() -> bool:
            with contextlib.suppress(BlockingIOError):
                stand.opener.only.wire.send(bytes(1514))
            return stand.value("aero_l2_sessions_kept") == 1

        await until(is_kept, "kept")
        again, _, is_resumed = await back(stand, secret)
        assert is_resumed
        assert ends(stand) == {}
        await again.close()
        client.transport.abort()


async def test_resume_during_the_close_gets_a_new_tunnel(stand: Stand) -> None:
    client, secret = await begun(stand)
    client.transport.pause_reading()
    stand.door.tunnels.live[0].close(Reason.IDLE_TIMEOUT)
    again, _, is_resumed = await back(stand, secret)
    assert not is_resumed
    assert len(stand.opener.live) == 2, "the first waits for the close frame of its client still"
    await again.close()
    client.transport.abort()


# --- What ends it while it is kept -----------------------------------------------------------------------


async def test_nobody_comes_back_in_time() -> None:
    async with standing(AERO_L2_RESUME_SECONDS="1") as stand:
        client, secret = await begun(stand)
        await lost(stand, client)
        await until(lambda: stand.door.active == 0, "released")
        assert ends(stand) == {"not_resumed": 1}
        assert stand.value("aero_l2_sessions_kept") == 0
        again, _, is_resumed = await back(stand, secret)
        assert not is_resumed
        await again.close()


async def test_lost_nat_ends_what_is_kept(stand: Stand) -> None:
    client, secret = await begun(stand)
    await lost(stand, client)
    stand.opener.only.failed.set_result("slirp4netns died of signal 9")
    await until(lambda: stand.door.active == 0, "released")
    assert ends(stand) == {"tunnel_failed": 1}
    again, _, is_resumed = await back(stand, secret)
    assert not is_resumed
    await again.close()


async def test_idle_time_stands_still_while_it_is_kept() -> None:
    async with standing(AERO_L2_IDLE_TIMEOUT_MS="300", AERO_L2_RESUME_SECONDS="2") as stand:
        client, _ = await begun(stand)
        await lost(stand, client)
        await until(lambda: stand.door.active == 0, "released")
        assert ends(stand) == {"not_resumed": 1}


async def test_session_length_and_expiry_end_what_is_kept() -> None:
    async with standing(AERO_L2_MAX_SESSION_SECONDS="1", **KEPT) as stand:
        client, _ = await begun(stand)
        await lost(stand, client)
        await until(lambda: stand.door.active == 0, "released")
        assert ends(stand) == {"session_too_long": 1}
    async with standing(AERO_L2_CLOSE_ON_EXPIRY="1", **SESSION, **KEPT) as stand:
        client, _ = await begun(stand, headers=cookie("me", 2))
        await lost(stand, client)
        await until(lambda: stand.door.active == 0, "released")
        assert ends(stand) == {"session_expired": 1}


async def test_shutdown_ends_what_is_kept_and_nothing_is_kept_any_more() -> None:
    async with standing(**KEPT) as stand:
        client, _ = await begun(stand)
        other, _ = await begun(stand)
        await lost(stand, client)
        stand.door.tunnels.keep_no_more()
        await until(lambda: stand.door.active == 1, "what was kept is released")
        other.transport.abort()
        await until(lambda: stand.door.active == 0, "what was open is released")
        assert ends(stand) == {"shutdown": 1, "peer_gone": 1}
        late = await opened(stand, "aero-l2-resume")
        stand.opener.only.wire.send(FRAME)
        assert await late.recv() == MESSAGE
        await late.close()


async def test_shutdown_waits_for_nobody_to_come_back() -> None:
    async with standing(**KEPT) as stand:
        client, secret = await begun(stand)
        await lost(stand, client)
        started = time.monotonic()
        await stand.door.shutdown()
        assert time.monotonic() - started < 5
        assert ends(stand) == {"shutdown": 1}
        assert secret


# --- Whose it is -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("guess", ["x", "A" * 32, "-" * 31, "_" * 33, "%41", "A" * 4000])
async def test_guessed_secret_gets_a_new_tunnel(stand: Stand, guess: str) -> None:
    client, secret = await begun(stand)
    await lost(stand, client)
    stranger, _, is_resumed = await back(stand, guess)
    assert not is_resumed
    await stranger.close()
    again, _, is_resumed = await back(stand, secret)
    assert is_resumed
    await again.close()


async def test_used_secret_gets_a_new_tunnel(stand: Stand) -> None:
    client, secret = await begun(stand)
    await lost(stand, client)
    again, _, is_resumed = await back(stand, secret)
    assert is_resumed
    replayed, _, is_resumed = await back(stand, secret)
    assert not is_resumed
    await ponged(again)
    assert again.close_code is None
    await lost(stand, again)
    once_more, _, is_resumed = await back(stand, secret)
    assert not is_resumed, "not while it is kept again either"
    for one in (replayed, once_more):
        await one.close()


async def test_secret_of_a_session_is_worth_nothing_to_another_session() -> None:
    async with standing(**SESSION, **KEPT) as stand:
        client, secret = await begun(stand, headers=cookie("me"))
        await lost(stand, client)
        thief, _, is_resumed = await back(stand, secret, headers=cookie("you"))
        assert not is_resumed
        with pytest.raises(InvalidStatus):
            await back(stand, secret)
        again, _, is_resumed = await back(stand, secret, headers=cookie("me"))
        assert is_resumed, "whoever tried did not use it up"
        await thief.close()
        await again.close()


async def test_session_comes_back_from_another_address() -> None:
    async with standing(**SESSION, **KEPT) as stand:
        client, secret = await begun(stand, headers=cookie("me"))
        await lost(stand, client)
        again, _, is_resumed = await back(stand, secret, headers=cookie("me"), address="127.0.0.2")
        assert is_resumed
        await again.close()


@pytest.mark.parametrize("settings", [{}, KEY], ids=["nobody asked", "one key for all"])
async def test_without_a_session_a_tunnel_is_its_addresses(settings: dict[str, str]) -> None:
    token = f"aero-l2-token.{KEY['AERO_L2_API_KEY']}"
    async with standing(**settings, **KEPT) as stand:
        client = await opened(stand, "aero-l2-resume", token)
        secret, _ = await greeting(client)
        await lost(stand, client)
        thief = await opened(stand, f"aero-l2-resume.{secret}", token, address="127.0.0.2")
        assert not (await greeting(thief))[1]
        again = await opened(stand, f"aero-l2-resume.{secret}", token)
        assert (await greeting(again))[1]
        await thief.close()
        await again.close()


async def test_of_two_that_come_at_once_one_gets_it_and_one_a_new_tunnel(stand: Stand) -> None:
    for _ in range(10):
        client, secret = await begun(stand)
        await lost(stand, client)
        found = await asyncio.gather(*(back(stand, secret) for _ in range(3)))
        assert sorted(is_resumed for _, _, is_resumed in found) == [False, False, True]
        for one, _, _ in found:
            await ponged(one)
            await one.close()
        await until(lambda: stand.door.active == 0, "released")


async def test_upgrade_that_fails_its_checks_uses_no_secret_up() -> None:
    async with standing(**SESSION, **KEPT) as stand:
        client, secret = await begun(stand, headers=cookie("me"))
        await lost(stand, client)
        for headers in ({}, cookie("me", -1)):
            with pytest.raises(InvalidStatus):
                await back(stand, secret, headers=headers)
        again, _, is_resumed = await back(stand, secret, headers=cookie("me"))
        assert is_resumed
        await again.close()


# --- Limits ----------------------------------------------------------------------------------------------


async def test_kept_tunnel_counts_in_every_limit_for_others() -> None:
    async with standing(AERO_L2_MAX_CONNECTIONS="1", **SESSION, **KEPT) as stand:
        client, secret = await begun(stand, headers=cookie("me"))
        await lost(stand, client)
        with pytest.raises(InvalidStatus) as refused:
            await opened(stand, headers=cookie("you"))
        assert refused.value.response.body == b"max connections exceeded"
        again, _, is_resumed = await back(stand, secret, headers=cookie("me"))
        assert is_resumed, "nobody can push out what is another's"
        await again.close()


@pytest.mark.parametrize(
    "limit",
    ["AERO_L2_MAX_CONNECTIONS", "AERO_L2_MAX_CONNECTIONS_PER_SESSION", "AERO_L2_MAX_CONNECTIONS_PER_IP"],
)
async def test_own_kept_tunnel_gives_way_to_a_new_one(limit: str) -> None:
    async with standing(**{limit: "2"}, **SESSION, **KEPT) as stand:
        me = cookie("me")
        oldest, its_secret = await begun(stand, headers=me)
        younger, secret = await begun(stand, headers=me)
        await lost(stand, oldest)
        await lost(stand, younger, 2)
        plain = await opened(stand, headers=me)
        assert stand.door.active == 2
        assert ends(stand) == {"not_resumed": 1}
        again, _, is_resumed = await back(stand, secret, headers=me)
        assert is_resumed, "the one that waited less long stayed"
        with pytest.raises(InvalidStatus):
            await back(stand, its_secret, headers=me)
        assert stand.door.active == 2, "who is open does not give way"
        await again.close()
        await plain.close()


async def test_without_a_session_a_kept_tunnel_gives_way_under_the_limit_of_its_address_only() -> None:
    """Behind one address there may be strangers, who get nothing of each other's under another limit."""
    async with standing(AERO_L2_MAX_CONNECTIONS="2", AERO_L2_MAX_CONNECTIONS_PER_IP="1", **KEPT) as stand:
        client, _ = await begun(stand)
        await lost(stand, client)
        mine, secret = await begun(stand)
        assert ends(stand) == {"not_resumed": 1}
        await lost(stand, mine)
        there = await opened(stand, address="127.0.0.2")
        stand.door.tunnels.permits.limits = PermitLimits(process=2)
        for address in ("127.0.0.1", "127.0.0.3"):
            with pytest.raises(InvalidStatus) as refused:
                await opened(stand, address=address)
            assert refused.value.response.body == b"max connections exceeded"
        again, _, is_resumed = await back(stand, secret)
        assert is_resumed
        await again.close()
        await there.close()


async def test_upgrade_that_is_dropped_while_room_is_made_holds_nothing() -> None:
    async with standing(AERO_L2_MAX_CONNECTIONS_PER_IP="1", **KEPT) as stand:
        client, _ = await begun(stand)
        await lost(stand, client)
        reader, writer = await stand.raw()
        request = (
            "GET /l2 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: aero-l2-tunnel-v1\r\n\r\n"
        )
        writer.write(request.encode())
        writer.transport.abort()
        del reader
        await until(lambda: stand.door.active in (0, 1) and not stand.door._upgrading, "it is gone")
        other = await opened(stand)
        await other.close()


async def test_permit_moves_to_where_the_session_comes_from() -> None:
    async with standing(AERO_L2_MAX_CONNECTIONS_PER_IP="1", **SESSION, **KEPT) as stand:
        client, secret = await begun(stand, headers=cookie("me"))
        await lost(stand, client)
        there = await opened(stand, headers=cookie("you"), address="127.0.0.2")
        with pytest.raises(InvalidStatus) as refused:
            await back(stand, secret, headers=cookie("me"), address="127.0.0.2")
        assert refused.value.response.body == b"max connections per ip exceeded"
        await there.close()
        await until(lambda: stand.door.active == 1, "the other is released")
        again, _, is_resumed = await back(stand, secret, headers=cookie("me"), address="127.0.0.2")
        assert is_resumed, "the refusal did not use it up"
        at_home = await opened(stand, headers=cookie("you"))
        with pytest.raises(InvalidStatus):
            await opened(stand, headers=cookie("you"), address="127.0.0.2")
        await again.close()
        await at_home.close()
        await until(lambda: stand.door.active == 0, "released")
        assert stand.door.tunnels.permits.tracked == 0


async def test_quota_goes_on_where_it_was() -> None:
    quota = 2 * GREETING_BYTES + 3 * len(MESSAGE)
    async with standing(AERO_L2_MAX_BYTES_PER_CONNECTION=str(quota), **KEPT) as stand:
        client, secret = await begun(stand)
        await client.send(MESSAGE)
        assert await from_wire(stand) == FRAME
        await lost(stand, client)
        stand.opener.only.wire.send(FRAME)
        await until(lambda: stand.value("l2_frames_dropped_total") == 1, "dropped, so it costs nothing")
        again, _, is_resumed = await back(stand, secret)
        assert is_resumed
        for _ in range(2):
            await again.send(MESSAGE)
            assert await from_wire(stand) == FRAME
        assert again.close_code is None
        await again.send(MESSAGE)
        assert await end_of(again) == (1008, "byte quota exceeded")


async def test_quota_that_the_secret_exceeds_ends_it() -> None:
    quota = 2 * GREETING_BYTES - 1
    async with standing(AERO_L2_MAX_BYTES_PER_CONNECTION=str(quota), **KEPT) as stand:
        client, secret = await begun(stand)
        await lost(stand, client)
        again = await opened(stand, f"aero-l2-resume.{secret}")
        assert await end_of(again) == (1008, "byte quota exceeded")
        assert ends(stand) == {"byte_quota": 1}


async def test_hour_that_is_over_ends_what_is_kept() -> None:
    async with standing(AERO_L2_MAX_BYTES_PER_PRINCIPAL_HOUR="2000", **SESSION, **KEPT) as stand:
        me = cookie("me")
        client, _ = await begun(stand, headers=me)
        await lost(stand, client)
        other = await opened(stand, headers=me)
        for _ in range(40):
            await other.send(MESSAGE)
        assert await end_of(other) == (1008, "hourly byte quota exceeded")
        await until(lambda: stand.door.active == 0, "released")
        assert ends(stand) == {"hourly_byte_quota": 2}


async def test_many_kept_tunnels_end_together_and_leave_nothing(stand: Stand) -> None:
    secrets = []
    for kept in range(1, 51):
        client, secret = await begun(stand)
        await lost(stand, client, kept)
        secrets.append(secret)
    found = await asyncio.gather(*(back(stand, secret) for secret in reversed(secrets)))
    assert all(is_resumed for _, _, is_resumed in found)
    assert len(stand.opener.live) == 50
    await asyncio.gather(*(client.close() for client, _, _ in found))
    await until(lambda: stand.door.active == 0, "released")
    assert len(stand.door.tunnels._tickets) == 0
