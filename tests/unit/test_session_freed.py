"""What a tunnel held is freed with it: its parts call each other, and the garbage collector comes by late."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
from support.door import Stand, bare_tunnel, standing
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from aero_l2.wire.tunnel import encode

FRAME = encode(0, bytes(range(60)))
SUBPROTOCOLS = [Subprotocol("aero-l2-tunnel-v1"), Subprotocol("aero-l2-resume")]


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async with standing(AERO_L2_RESUME_SECONDS="1") as made:
        yield made


async def goes_in_good_order(stand: Stand) -> None:
    client = await stand.client()
    await client.send(FRAME)
    await client.close()


async def goes_amid_a_message(stand: Stand) -> None:
    sock = await bare_tunnel(stand)
    await asyncio.get_running_loop().sock_sendall(sock, b"\x02\x80\0\0\0\0" + b"\x82\xfe")
    sock.close()


async def says_nonsense(stand: Stand) -> None:
    client = await stand.client()
    await client.send(b"nonsense")
    await client.wait_closed()


async def breaks_the_websocket_protocol(stand: Stand) -> None:
    sock = await bare_tunnel(stand)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, b"\xff\xff")
    while await loop.sock_recv(sock, 1 << 16):
        pass
    sock.close()


async def never_comes_back(stand: Stand) -> None:
    client = await connect(f"ws://127.0.0.1:{stand.door.port}/l2", subprotocols=SUBPROTOCOLS, proxy=None)
    client.transport.abort()
    await stand.until(lambda: stand.value("aero_l2_sessions_kept") == 1, "the tunnel is kept")


async def is_cut_off_at_its_segments_end(stand: Stand) -> None:
    client = await stand.client()
    stand.opener.only.failed.set_result("the NAT process ended")
    await client.wait_closed()


@contextmanager
def no_garbage_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def parts() -> Counter[str]:
    """What there is of tunnels, by type."""
    kinds = (type(one) for one in gc.get_objects())
    return Counter(
        kind.__qualname__
        for kind in kinds
        if str(kind.__module__).startswith("aero_l2.session.") or kind.__name__ == "ServerProtocol"
    )


@pytest.mark.parametrize(
    "goes",
    [
        goes_in_good_order,
        goes_amid_a_message,
        says_nonsense,
        breaks_the_websocket_protocol,
        never_comes_back,
        is_cut_off_at_its_segments_end,
    ],
)
async def test_nothing_of_a_tunnel_waits_for_the_garbage_collector(stand: Stand, goes: object) -> None:
    assert callable(goes)
    await goes_in_good_order(stand)
    await stand.until(lambda: stand.door.active == 0, "what is made once is made")
    with no_garbage_collector():
        before = parts()
        for _ in range(3):
            await goes(stand)
            await stand.until(lambda: stand.door.active == 0, "the tunnel is over")
        left = parts() - before
        for _ in range(50):
            if not left:
                return
            await asyncio.sleep(0.1)
            left = parts() - before
        raise AssertionError(f"left after 5 s: {left}")
