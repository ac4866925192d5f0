"""A door under pressure: who waits, who is told to come again, and what /readyz and the metrics say."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs
from support.door import OFFER, UPGRADE, Stand, settings, standing
from support.wait import until

from aero_l2.door import pressure as module
from aero_l2.quota.capacity import MIB, Room, Stock

HELLO = UPGRADE.format(path="/l2", more=OFFER)
BUSY = b"too many tunnels are being set up; try again"
LATE = b"the server is overloaded; try again"


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async with standing(AERO_L2_MAX_SETUPS="1", AERO_L2_MAX_WAITING_SETUPS="2") as built:
        built.opener.hold = asyncio.Event()
        yield built


async def waiting(stand: Stand, count: int) -> list[asyncio.StreamWriter]:
    """Upgrades of which one is being made and the others wait."""
    writers = []
    for number in range(count):
        _, writer = await stand.raw()
        writer.write(HELLO.encode())
        writers.append(writer)
        await stand.until(lambda: stand.door.tunnels.active == number + 1, "it is taken on")  # noqa: B023
    return writers


async def test_upgrade_beyond_those_that_wait_is_503_with_retry_after(stand: Stand) -> None:
    writers = await waiting(stand, 3)
    assert stand.value("aero_l2_setups_active") == 1
    assert stand.value("aero_l2_setups_waiting") == 2
    status, headers, body = await stand.ask(HELLO)
    assert (status, body) == (503, BUSY)
    assert int(headers["retry-after"]) > 0
    assert stand.value("aero_l2_upgrades_shed_total", reason="setups") == 1
    assert stand.value("l2_upgrade_rejected_total") == 0
    assert (await stand.ask("GET /readyz HTTP/1.1\r\n\r\n"))[0] == 200
    for writer in writers:
        writer.close()


async def test_waiting_upgrade_becomes_a_tunnel(stand: Stand) -> None:
    assert stand.opener.hold is not None
    asking = [asyncio.create_task(stand.client()) for _ in range(3)]
    await stand.until(lambda: stand.door.tunnels.setups.waiting == 2, "two wait")
    stand.opener.hold.set()
    for client in await asyncio.gather(*asking):
        await client.close()


async def test_client_that_leaves_while_it_waits_gives_its_place_up_at_once(stand: Stand) -> None:
    writers = await waiting(stand, 3)
    writers[1].close()
    await stand.until(lambda: stand.door.tunnels.setups.waiting == 1, "its place is free")
    assert stand.door.active == 2
    assert len(stand.opener.live) == 1
    writers += await waiting_more(stand)
    for writer in writers:
        writer.close()


async def waiting_more(stand: Stand) -> list[asyncio.StreamWriter]:
    """One more upgrade, which finds a place to wait."""
    _, writer = await stand.raw()
    writer.write(HELLO.encode())
    await stand.until(lambda: stand.door.tunnels.setups.waiting == 2, "it waits")
    return [writer]


async def test_waiting_upgrade_holds_a_permit() -> None:
    variables = {"AERO_L2_MAX_SETUPS": "1", "AERO_L2_MAX_CONNECTIONS": "2"}
    async with standing(**variables) as stand:
        stand.opener.hold = asyncio.Event()
        writers = await waiting(stand, 2)
        assert (await stand.ask(HELLO))[::2] == (429, b"max connections exceeded")
        for writer in writers:
            writer.close()


async def test_shutdown_answers_those_that_wait(stand: Stand) -> None:
    asking = [asyncio.create_task(stand.ask(HELLO)) for _ in range(3)]
    await stand.until(lambda: stand.door.tunnels.setups.waiting == 2, "two wait")
    await stand.door.shutdown()
    assert [(await one)[::2] for one in asking] == [(503, b"shutting down")] * 3
    assert stand.value("aero_l2_upgrades_shed_total", reason="shutdown") == 3
    assert stand.value("aero_l2_ready") == 0
    assert stand.door.tunnels.setups.waiting == 0


async def test_too_many_that_wait_are_refused_before_credentials_and_behind_the_rate() -> None:
    """Refusing is what costs least then, so nothing else of the request is looked at (HTTP, check 1)."""
    variables = {
        "AERO_L2_AUTH_MODE": "token",
        "AERO_L2_API_KEY": "a-key-0123456789abcdef",
        "AERO_L2_MAX_SETUPS": "1",
        "AERO_L2_MAX_WAITING_SETUPS": "1",
        "AERO_L2_MAX_UPGRADES_PER_MINUTE_PER_IP": "4",
    }
    good = UPGRADE.format(path="/l2?token=a-key-0123456789abcdef", more=OFFER)
    async with standing(**variables) as stand:
        stand.opener.hold = asyncio.Event()
        asking = [asyncio.create_task(stand.ask(good)) for _ in range(2)]
        await stand.until(lambda: stand.door.tunnels.setups.waiting == 1, "one waits")
        assert (await stand.ask(UPGRADE.format(path="/l2", more="")))[::2] == (503, BUSY)
        assert (await stand.ask(HELLO))[::2] == (503, BUSY)
        assert (await stand.ask(HELLO))[::2] == (429, b"too many upgrade attempts")
        await stand.door.shutdown()
        await asyncio.gather(*asking)


async def test_upgrades_are_refused_while_the_loop_is_late_and_taken_again_after() -> None:
    async with standing(AERO_L2_MAX_LOOP_LAG_MS="20") as stand:
        stop = asyncio.Event()

        async def hog() -> None:
            while not stop.is_set():
                time.sleep(0.15)  # noqa: ASYNC251  # the loop is to be late
                await asyncio.sleep(0)

        hogging = asyncio.create_task(hog())
        await until(lambda: stand.door.pressure.too_late() is not None, "the loop counts as late")
        status, headers, body = await stand.ask(UPGRADE.format(path="/l2", more=""))
        assert (status, body) == (503, LATE)
        assert "retry-after" in headers
        assert (await stand.ask("GET /readyz HTTP/1.1\r\n\r\n"))[::2] == (503, LATE)
        assert (await stand.ask("GET /healthz HTTP/1.1\r\n\r\n"))[0] == 200
        assert stand.value("aero_l2_upgrades_shed_total", reason="lag") == 1
        stop.set()
        await hogging
        await until(lambda: stand.door.pressure.too_late() is None, "the loop has caught up")
        await (await stand.client()).close()
        late = stand.value("aero_l2_loop_lag_seconds_count") - stand.value(
            "aero_l2_loop_lag_seconds_bucket", le="0.025"
        )
        assert late >= 3


async def test_host_without_memory_for_one_more_says_so(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In plain words, before the kernel has to choose what to kill."""
    monkeypatch.setattr(module, "LOOK_S", 0.0)
    assert stand.opener.hold is not None
    stand.opener.hold.set()
    left = 66 * MIB
    monkeypatch.setattr(
        stand.door.pressure,
        "_host",
        lambda _: Room(memory=Stock(512 * MIB, left, "memory.max of cgroup /x")),
    )
    client = await stand.client()
    reason = b"the host has no memory left for another tunnel (memory.max of cgroup /x)"
    left = 65 * MIB
    status, headers, body = await stand.ask(HELLO)
    assert (status, body) == (503, reason)
    assert "retry-after" in headers
    assert (await stand.ask("GET /readyz HTTP/1.1\r\n\r\n"))[::2] == (503, reason)
    assert stand.value("aero_l2_upgrades_shed_total", reason="room") == 1
    assert stand.value("aero_l2_capacity_tunnels", limit="memory") == 1
    left = 512 * MIB
    await (await stand.client()).close()
    ready = b"ready: at most 64 tunnels at once, by AERO_L2_MAX_CONNECTIONS"
    assert (await stand.ask("GET /readyz HTTP/1.1\r\n\r\n"))[::2] == (200, ready)
    await client.close()


async def test_host_that_allows_less_than_is_asked_for_is_a_warning(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    room = Room(memory=Stock(128 * MIB, 100 * MIB, "memory.max of cgroup /x"))
    monkeypatch.setattr(stand.door.pressure, "_host", lambda _: room)
    stand.door.apply(settings())
    stand.door.pressure.stop()
    stand.door.pressure.start()
    assert "the host limits the tunnels" in (said := capsys.readouterr().out)
    assert "at most 18 tunnels at once, by memory.max of cgroup /x" in said


async def test_capacity_by_limit_is_a_metric_and_follows_the_settings(stand: Stand) -> None:
    assert stand.value("aero_l2_capacity_tunnels", limit="setting") == 64
    assert stand.value("aero_l2_capacity_tunnels", limit="files") == float("inf")
    stand.door.apply(settings(AERO_L2_MAX_CONNECTIONS="0", AERO_L2_MAX_SETUPS="7"), 100)
    assert stand.value("aero_l2_capacity_tunnels", limit="setting") == float("inf")
    assert stand.value("aero_l2_capacity_tunnels", limit="files") == 100
    assert stand.door.tunnels.permits.limits.process == 100
    assert stand.door.tunnels.setups.limits.at_once == 7
    body = (await stand.ask("GET /readyz HTTP/1.1\r\n\r\n"))[2]
    assert body == b"ready: at most 100 tunnels at once, by RLIMIT_NOFILE"


async def test_each_limit_of_the_host_is_shown_as_it_is(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tunnels, what there is and what is used of it; the server's own files: test_metrics_exact.py."""
    stocks = {
        "pids": (Stock(200, 62, "pids.max"), 30),  # 32 stay for others
        "memory": (Stock(512 * MIB, 84 * MIB, "memory.max"), 10),  # and 64 MiB
        "conntrack": (Stock(6400, 1664, "nf_conntrack_max"), 10),  # and 1024
        "ports": (Stock(3200, 640, "ip_local_port_range"), 10),  # and a tenth
        "tcp": (Stock(8 * MIB, MIB, "tcp_mem"), 8),
    }
    room = Room(**{limit: stock for limit, (stock, _) in stocks.items()})
    monkeypatch.setattr(stand.door.pressure, "_host", lambda _: room)
    stand.door.apply(settings(AERO_L2_MAX_CONNECTIONS="9"), 77)
    assert stand.value("aero_l2_capacity_tunnels", limit="files") == 77
    for limit, (stock, tunnels) in stocks.items():
        assert stand.value("aero_l2_capacity_max", limit=limit) == stock.total
        assert stand.value("aero_l2_capacity_used", limit=limit) == stock.total - stock.left
        assert stand.value("aero_l2_capacity_tunnels", limit=limit) == tunnels
    shown = [stand.value(f"aero_l2_capacity_{what}", limit="setting") for what in ("tunnels", "max", "used")]
    assert shown == [9, 9, 0]


async def test_tunnel_that_cannot_be_made_and_readiness_are_metrics() -> None:
    async with standing() as stand:
        assert stand.value("aero_l2_ready") == 1
        stand.opener.refuse = stand.readiness.reason = "the network helper does not answer"
        assert (await stand.ask(HELLO))[::2] == (503, b"the network helper does not answer")
        assert stand.value("aero_l2_upgrades_shed_total", reason="failed") == 1
        assert stand.value("aero_l2_ready") == 0
        stand.door.endpoints.draining = True
        assert (await stand.ask(HELLO))[::2] == (503, b"shutting down")
        assert stand.value("aero_l2_upgrades_shed_total", reason="shutdown") == 1
        assert stand.value("l2_upgrade_rejected_total") == 0


@pytest.mark.parametrize(
    ("setting", "files", "limit"),
    [("1", 2, "AERO_L2_MAX_CONNECTIONS"), ("2", 1, "RLIMIT_NOFILE"), ("0", 1, "RLIMIT_NOFILE")],
)
async def test_log_names_the_limit_that_refuses(setting: str, files: int, limit: str) -> None:
    async with standing() as stand:
        stand.door.apply(settings(AERO_L2_MAX_CONNECTIONS=setting), files)
        client = await stand.client()
        with capture_logs() as lines:
            assert (await stand.ask(HELLO))[::2] == (429, b"max connections exceeded")
        assert [line["limit"] for line in lines if line["event"] == "upgrade refused"] == [limit]
        await client.close()
