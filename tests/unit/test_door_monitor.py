"""The second listener: what it serves, what the first one no longer does, and that it is no way in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from support.door import OFFER, UPGRADE, Stand, standing

from aero_l2.door.monitor import MAX_WAITING

GET = "GET {} HTTP/1.1\r\nHost: x\r\n\r\n"
MONITORED = ["/metrics", "/version", "/readyz"]


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async with standing(
        AERO_L2_UPGRADE_TIMEOUT_MS="300", AERO_L2_MAX_HEADER_BYTES="2048", AERO_L2_RAW_FRAMES="1"
    ) as it:
        await it.door.monitor.listen(("127.0.0.1", 0))
        yield it


def port_of(stand: Stand) -> int:
    address = stand.door.monitor.address
    assert address is not None
    return address[1]


@pytest.mark.parametrize("path", [*MONITORED, "/healthz"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_it_serves_what_is_for_monitoring(stand: Stand, path: str, method: str) -> None:
    status, headers, body = await stand.ask(f"{method} {path} HTTP/1.1\r\n\r\n", port_of(stand))
    assert status == 200
    assert bool(body) == (method == "GET")
    assert int(headers["content-length"]) > 0


@pytest.mark.parametrize("path", MONITORED)
async def test_the_main_one_leaves_it_to_that_and_keeps_healthz(stand: Stand, path: str) -> None:
    assert (await stand.ask(GET.format(path)))[::2] == (404, b"not found")
    assert (await stand.ask(f"POST {path} HTTP/1.1\r\nContent-Length: 0\r\n\r\n"))[0] == 404
    assert (await stand.ask(GET.format("/healthz")))[::2] == (200, b"ok")


async def test_without_it_the_main_one_serves_everything() -> None:
    async with standing() as alone:
        for path in (*MONITORED, "/healthz"):
            assert (await alone.ask(GET.format(path)))[0] == 200


@pytest.mark.parametrize("path", ["/l2", "/l2/", "/eth", "/v86", "/v86/secret", "/session", "/metrics", "/"])
async def test_no_upgrade_opens_a_tunnel_there(stand: Stand, path: str) -> None:
    status, _, _ = await stand.ask(UPGRADE.format(path=path, more=OFFER), port_of(stand))
    assert status == (200 if path == "/metrics" else 404)
    assert stand.door.active == 0
    assert stand.value("l2_sessions_total") == 0


async def test_other_methods_are_405(stand: Stand) -> None:
    status, headers, _ = await stand.ask("DELETE /metrics HTTP/1.1\r\n\r\n", port_of(stand))
    assert (status, headers["allow"]) == (405, "GET, HEAD")


async def test_a_head_is_bounded_in_time_and_size(stand: Stand) -> None:
    big = "GET /metrics HTTP/1.1\r\nX: " + "x" * 4000
    assert (await stand.ask(big, port_of(stand)))[0] == 431
    assert (await stand.ask("GET /met", port_of(stand)))[0] == 408
    assert (await stand.ask(b"\x16\x03\x01", port_of(stand)))[0] == 400


async def test_one_connection_too_many_drops_the_oldest(stand: Stand) -> None:
    first = await stand.raw(port_of(stand))
    others = [await stand.raw(port_of(stand)) for _ in range(MAX_WAITING)]
    assert await asyncio.wait_for(first[0].read(), 5) == b""
    for _, writer in (first, *others):
        writer.close()


async def test_those_who_fill_it_leave_the_main_one_alone(stand: Stand) -> None:
    crowd = [await stand.raw(port_of(stand)) for _ in range(3 * MAX_WAITING)]
    client = await stand.client()
    await client.close()
    for _, writer in crowd:
        writer.close()


async def test_it_answers_while_draining_and_ends_with_the_main_one(stand: Stand) -> None:
    client, port = await stand.client(), port_of(stand)
    stand.door.drain_s = 30.0
    at_once = asyncio.Event()
    ending = asyncio.ensure_future(stand.door.shutdown(at_once))
    await stand.until(lambda: stand.door.endpoints.draining, "it drains")
    assert (await stand.ask(GET.format("/readyz"), port))[::2] == (503, b"shutting down")
    assert (await stand.ask(GET.format("/metrics"), port))[0] == 200
    await client.close()
    await asyncio.wait_for(ending, 10)
    with pytest.raises(ConnectionRefusedError):
        await stand.raw(port)


async def test_client_that_leaves_while_its_answer_is_made_harms_nobody(stand: Stand) -> None:
    looking, go_on = asyncio.Event(), asyncio.Event()

    async def look() -> None:
        looking.set()
        await go_on.wait()

    stand.door.endpoints.scrapes.looks = [look]
    _, writer = await stand.raw(port_of(stand))
    writer.write(GET.format("/metrics").encode())
    await asyncio.wait_for(looking.wait(), 5)
    writer.transport.abort()
    other = asyncio.ensure_future(stand.ask(GET.format("/metrics"), port_of(stand)))
    await asyncio.sleep(0)
    go_on.set()
    assert (await other)[0] == 200


async def test_metrics_that_cannot_be_made_are_500(stand: Stand) -> None:
    async def look() -> None:
        raise RuntimeError("no")

    stand.door.endpoints.scrapes.looks = [look]
    assert (await stand.ask(GET.format("/metrics"), port_of(stand)))[::2] == (500, b"internal error")
