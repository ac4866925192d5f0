"""Room for a new tunnel where the owner has kept ones: they end for one that stands and for no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from support.door import OFFER, UPGRADE, Stand, standing
from support.resuming import (
    KEPT,
    SESSION,
    back,
    begun,
    cookie,
    ends,
    lost,
    opened,
    resumes,
    until,
)
from websockets.exceptions import InvalidStatus

from aero_l2 import tasks
from aero_l2.door.pressure import LATE
from aero_l2.quota.turns import TurnLimits
from aero_l2.session.closing import Reason
from aero_l2.session.registry import PermitLimits
from aero_l2.session.setups import BUSY

ONE_EACH = {"AERO_L2_MAX_CONNECTIONS_PER_IP": "1"}


def no_segment(stand: Stand) -> None:
    stand.opener.refuse = "slirp4netns is missing"


def no_room(stand: Stand) -> None:
    stand.door.tunnels.setups.room = lambda: "no memory"


def too_few(stand: Stand) -> None:
    """The end of the one that is kept would not be enough."""
    stand.door.tunnels.permits.limits = PermitLimits(client=2, process=1)


@pytest.mark.parametrize("spoil", [no_segment, no_room, too_few])
async def test_kept_tunnel_is_not_lost_to_one_that_is_not_made(spoil: Callable[[Stand], None]) -> None:
    async with standing(AERO_L2_MAX_CONNECTIONS_PER_IP="2", **SESSION, **KEPT) as stand:
        plain = await opened(stand, headers=cookie("me"))
        client, secret = await begun(stand, headers=cookie("me"))
        await lost(stand, client)
        spoil(stand)
        with pytest.raises(InvalidStatus) as refused:
            await opened(stand, headers=cookie("me"))
        assert refused.value.response.status_code == (429 if spoil is too_few else 503)
        assert (stand.door.active, stand.value("aero_l2_sessions_kept")) == (2, 1)
        again, _, is_resumed = await back(stand, secret, headers=cookie("me"))
        assert is_resumed
        assert ends(stand) == {}
        await again.close()
        await plain.close()


async def test_kept_tunnel_is_not_lost_to_an_upgrade_that_leaves_or_waits_in_vain() -> None:
    async with standing(AERO_L2_MAX_SETUPS="1", **ONE_EACH, **KEPT) as stand:
        client, secret = await begun(stand)
        await lost(stand, client)
        stand.opener.hold, stand.opener.entered = asyncio.Event(), asyncio.Event()
        _, writer = await stand.raw()
        writer.write(UPGRADE.format(path="/l2", more=OFFER).encode())
        await stand.opener.entered.wait()
        assert stand.door.active == 1, "one is promised to the other"
        with pytest.raises(InvalidStatus) as refused:
            await opened(stand)
        assert refused.value.response.body == b"max connections per ip exceeded", "it is promised already"
        writer.transport.abort()
        await until(lambda: len(stand.opener.live) == 1, "what was begun is undone")
        again, _, is_resumed = await back(stand, secret)
        assert is_resumed
        assert stand.door.active == 1
        await again.close()


async def test_who_comes_back_meanwhile_keeps_it_and_the_new_one_is_refused() -> None:
    async with standing(**ONE_EACH, **KEPT) as stand:
        client, secret = await begun(stand)
        await lost(stand, client)
        stand.opener.hold, stand.opener.entered = asyncio.Event(), asyncio.Event()
        asking = tasks.spawn(stand.ask(UPGRADE.format(path="/l2", more=OFFER)), name="new")
        await stand.opener.entered.wait()
        again, _, is_resumed = await back(stand, secret)
        assert is_resumed
        stand.opener.hold.set()
        assert (await asking)[::2] == (429, b"max connections per ip exceeded")
        await until(lambda: stand.door.active == 1, "the new one is undone")
        assert again.close_code is None
        await again.close()


async def test_another_kept_one_gives_way_for_one_that_was_promised_and_resumed() -> None:
    async with standing(AERO_L2_MAX_CONNECTIONS_PER_IP="2", **KEPT) as stand:
        (first, secret), (second, _) = await begun(stand), await begun(stand)
        await lost(stand, first)
        await lost(stand, second, 2)
        stand.opener.hold, stand.opener.entered = asyncio.Event(), asyncio.Event()
        asking = tasks.spawn(opened(stand), name="new")
        await stand.opener.entered.wait()
        again, _, is_resumed = await back(stand, secret)
        assert is_resumed
        stand.opener.hold.set()
        new = await asking
        assert (stand.door.active, ends(stand)) == (2, {"not_resumed": 1})
        await new.close()
        await again.close()


async def test_one_that_ended_by_itself_meanwhile_has_made_room_too() -> None:
    async with standing(AERO_L2_RESUME_SECONDS="1", **ONE_EACH) as stand:
        client, _ = await begun(stand)
        await lost(stand, client)
        stand.opener.hold, stand.opener.entered = asyncio.Event(), asyncio.Event()
        asking = tasks.spawn(opened(stand), name="new")
        await stand.opener.entered.wait()
        await until(lambda: len(stand.opener.live) == 1, "it was kept long enough")
        stand.opener.hold.set()
        new = await asking
        assert stand.door.active == 1
        await new.close()


async def test_it_is_kept_where_another_tunnel_of_its_owner_has_made_room_meanwhile() -> None:
    async with standing(AERO_L2_MAX_CONNECTIONS_PER_SESSION="3", **SESSION, **KEPT) as stand:
        (first, _), (second, _) = (
            await begun(stand, headers=cookie("me")),
            await begun(stand, headers=cookie("me")),
        )
        other = await opened(stand, headers=cookie("me"))
        await lost(stand, first)
        await lost(stand, second, 2)
        stand.opener.hold, stand.opener.entered = asyncio.Event(), asyncio.Event()
        asking = [tasks.spawn(opened(stand, headers=cookie("me")), name="new") for _ in range(2)]
        await until(lambda: len(stand.opener.live) == 5, "both are being made")
        await other.close()
        await until(lambda: len(stand.opener.live) == 4, "there is room for one of them")
        stand.opener.hold.set()
        clients = [await one for one in asking]
        assert (stand.door.active, ends(stand)) == (3, {"peer_closed": 1, "not_resumed": 1})
        assert stand.value("aero_l2_sessions_kept") == 1
        for client in clients:
            await client.close()


async def test_place_that_is_promised_is_nobody_elses() -> None:
    async with standing(AERO_L2_MAX_CONNECTIONS="1", **SESSION, **KEPT) as stand:
        client, _ = await begun(stand, headers=cookie("me"))
        await lost(stand, client)
        done = stand.opener.hold = asyncio.Event()
        stand.opener.entered = asyncio.Event()
        asking = tasks.spawn(opened(stand, headers=cookie("me")), name="new")
        await stand.opener.entered.wait()
        stand.opener.hold = None
        [kept] = stand.door.tunnels.live
        for ends_first in (False, True):
            if ends_first:
                kept.close(Reason.NOT_RESUMED)
                await until(lambda: len(stand.opener.live) == 1, "it has ended by itself")
            for headers in (cookie("me"), cookie("you")):
                with pytest.raises(InvalidStatus) as refused:
                    await opened(stand, headers=headers)
                assert refused.value.response.body == b"max connections exceeded"
        done.set()
        await (await asking).close()


def busy(stand: Stand) -> None:
    """One is being set up, and nobody may wait."""
    stand.door.tunnels.setups.limits = TurnLimits(1, 1)
    stand.door.tunnels.setups.refusal = lambda _: BUSY  # type: ignore[method-assign]


def late(stand: Stand) -> None:
    stand.door.pressure.too_late = lambda: LATE  # type: ignore[method-assign]


@pytest.mark.parametrize(("press", "text"), [(busy, BUSY), (late, LATE)])
async def test_resume_is_no_load_and_only_whoever_has_it_is_let_past(
    press: Callable[[Stand], None], text: str
) -> None:
    async with standing(AERO_L2_RAW_FRAMES="1", **SESSION, **KEPT) as stand:
        client, secret = await begun(stand, headers=cookie("me"))
        await lost(stand, client)
        press(stand)
        for wrong, headers in (("a" * 32, cookie("me")), (secret[1:], cookie("me")), (secret, cookie("you"))):
            with pytest.raises(InvalidStatus) as refused:
                await back(stand, wrong, headers=headers)
            assert (refused.value.response.status_code, refused.value.response.body) == (503, text.encode())
        with pytest.raises(InvalidStatus) as refused:
            await back(stand, "a" * 32)
        assert refused.value.response.status_code == 503, "nobody computes signatures to say so"
        with pytest.raises(InvalidStatus) as refused:
            await back(stand, secret)
        assert refused.value.response.status_code == 401
        raw = UPGRADE.format(path="/v86", more=f"Sec-WebSocket-Protocol: aero-l2-resume.{secret}\r\n")
        assert (await stand.ask(raw))[::2] == (503, text.encode())
        again, secret, is_resumed = await back(stand, secret, headers=cookie("me"))
        assert is_resumed
        assert resumes(stand)[0] == 1
        await again.close()


async def test_resume_is_within_the_rate_and_not_beyond_the_end() -> None:
    async with standing(AERO_L2_MAX_UPGRADES_PER_MINUTE_PER_IP="2", **KEPT) as stand:
        client, secret = await begun(stand)
        await lost(stand, client)
        client, secret, _ = await back(stand, secret)
        await lost(stand, client)
        with pytest.raises(InvalidStatus) as refused:
            await back(stand, secret)
        assert refused.value.response.status_code == 429
        stand.door.endpoints.draining = True
        with pytest.raises(InvalidStatus) as refused:
            await back(stand, secret)
        assert refused.value.response.body == b"shutting down"


async def test_refusal_that_nobody_waits_for_is_no_failure_of_ours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with standing(AERO_L2_MAX_CONNECTIONS="1") as stand:
        client = await opened(stand)
        _, writer = await stand.raw()
        writer.write(UPGRADE.format(path="/l2", more=OFFER).encode())
        writer.transport.abort()
        await until(lambda: stand.value("l2_upgrade_reject_max_connections_total") == 1, "it is refused")
        await until(lambda: not stand.door._upgrading, "it is gone")
        await client.close()
    assert "task failed" not in capsys.readouterr().out
