"""A tunnel cancelled at every await it has, in every story: permits, accounts and counters come out even."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.door import FakeSegment

from aero_l2 import tasks
from aero_l2.errors import AtCapacity, SegmentUnavailable
from aero_l2.observe.metrics import Metrics
from aero_l2.session.closing import Reason
from aero_l2.session.lifecycle import Phase, Times
from aero_l2.session.options import TunnelOptions
from aero_l2.session.registry import Holder, PermitLimits
from aero_l2.session.tunnel import Tunnel
from aero_l2.session.tunnels import Tunnels
from aero_l2.wire.framing import framing
from aero_l2.wire.tunnel import Limits, encode

ME = Holder("192.0.2.1", "me")
MESSAGE = encode(0, bytes(60))
LEAST_TURNS = 6
"""A story takes more: three of its set-up, and what follows."""
MOST_TURNS = 400
HOUR_BYTES = 10_000
_TURN_S = 1e-9  # over by the next turn, however quick the machine is


def masked(message: bytes, first: int = 0x82) -> bytes:
    return bytes([first, 0x80 | len(message)]) + bytes(4) + message


@dataclass
class Steps:
    """An opener with an await at every place one can have, which may fail at each."""

    fails_at: int = -1
    live: set[int] = field(default_factory=set)
    segment: FakeSegment | None = None

    @asynccontextmanager
    async def __call__(self, session_id: int) -> AsyncIterator[FakeSegment]:
        for step in range(3):
            await asyncio.sleep(0)
            if step == self.fails_at:
                raise SegmentUnavailable("as the test wants it")
        segment = self.segment = FakeSegment()
        segment.nat_ready.set_result(None)
        self.live.add(session_id)
        try:
            yield segment
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            self.live.discard(session_id)
            segment.close()


Story = Callable[[Tunnels, Steps, socket.socket], None]


def client_closes(_: Tunnels, __: Steps, client: socket.socket) -> None:
    client.send(masked(MESSAGE) + masked(b"\x03\xe8", 0x88))


def client_is_malformed(_: Tunnels, __: Steps, client: socket.socket) -> None:
    client.send(masked(MESSAGE) + masked(b"\0\0\0\0"))


def client_leaves(_: Tunnels, __: Steps, client: socket.socket) -> None:
    client.close()


def quota_is_used_up(_: Tunnels, __: Steps, client: socket.socket) -> None:
    client.send(masked(MESSAGE) * (HOUR_BYTES // len(MESSAGE) + 1))


def segment_is_lost(_: Tunnels, steps: Steps, __: socket.socket) -> None:
    assert steps.segment is not None
    steps.segment.failed.set_result("lost")


def process_ends(tunnels: Tunnels, _: Steps, __: socket.socket) -> None:
    tunnels.close_all(Reason.SHUTDOWN)


def client_is_lost(_: Tunnels, __: Steps, client: socket.socket) -> None:
    client.close()


def client_comes_back(tunnels: Tunnels, _: Steps, client: socket.socket) -> None:
    [tunnel] = tunnels.live
    secret = tunnels._tickets.issue(tunnel, ME.owner)
    client.close()
    tasks.spawn(come_back(tunnels, tunnel, secret), name="back")


async def come_back(tunnels: Tunnels, tunnel: Tunnel, secret: str) -> None:
    """Take it up again as soon as it is kept, and have it closed through the new WebSocket."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, ours)
    while tunnel.life.is_open:  # noqa: ASYNC110 - every turn counts here
        await asyncio.sleep(0)
    found = tunnels.redeem(secret, ME)
    if found is None:
        transport.abort()
    else:
        found.resume(transport, masked(MESSAGE), "192.0.2.1:2", ME, None)
        theirs.send(masked(MESSAGE) + masked(b"\x03\xe8", 0x88))
    while tunnel.life.phase is not Phase.CLOSED:  # noqa: ASYNC110
        await asyncio.sleep(0)
    theirs.close()


def client_wants_a_new_one(tunnels: Tunnels, steps: Steps, client: socket.socket) -> None:
    client.close()
    tasks.spawn(give_way(tunnels, steps), name="next")


async def give_way(tunnels: Tunnels, steps: Steps) -> None:
    """Another tunnel of the same owner, who has one permit, as soon as the first is kept."""
    while tunnels.live and tunnels.live[0].life.is_open:  # noqa: ASYNC110
        await asyncio.sleep(0)
    with contextlib.suppress(AtCapacity):
        await live(tunnels, steps, client_closes)


KEEPING = (client_is_lost, client_comes_back, client_wants_a_new_one)
STORIES = (
    *KEEPING,
    client_closes,
    client_is_malformed,
    client_leaves,
    quota_is_used_up,
    segment_is_lost,
    process_ends,
)


async def live(tunnels: Tunnels, steps: Steps, story: Story) -> None:
    """What a connection does with a tunnel; its client does what the story says once frames flow."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        how = framing("aero-l2-tunnel-v1", Limits())
        async with tunnels.prepare("192.0.2.1:1", ME, how, resumable=story in KEEPING) as tunnel:
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
            loop.call_soon(story, tunnels, steps, theirs)
            await tunnel.run(transport, b"")
    finally:
        theirs.close()
        ours.close()


async def cancelled_after(turns: tuple[int, ...], story: Story, fails_at: int = -1) -> bool:
    """Live a life and cancel it after so many turns of the loop, each time; False if it ended by itself."""
    steps, metrics = Steps(fails_at), Metrics()
    options = TunnelOptions(
        times=Times(close_wait_s=0, keep_s=_TURN_S if story is client_is_lost else 1), max_messages=1000
    )
    tunnels = Tunnels(steps, limits=PermitLimits(1, 1, 1), options=options, metrics=metrics)
    tunnels.hours.limit = HOUR_BYTES
    task = tasks.spawn(live(tunnels, steps, story), name="life")
    was_cancelled = False
    for wait in turns:
        for _ in range(wait):
            await asyncio.sleep(0)
        was_cancelled |= task.cancel()
    async with asyncio.timeout(20):
        await asyncio.wait((task,))
    if not task.cancelled() and fails_at < 0:
        task.result()
    async with asyncio.timeout(20):
        while tasks.running():  # noqa: ASYNC110
            await asyncio.sleep(0)
    _comes_out_even(tunnels, steps, metrics)
    return was_cancelled


def _comes_out_even(tunnels: Tunnels, steps: Steps, metrics: Metrics) -> None:
    assert tunnels.permits.taken == 0
    assert tunnels.permits.tracked == 0
    assert not tunnels.live
    assert len(tunnels._tickets) == 0
    assert metrics.sessions_kept._value.get() == 0
    assert not steps.live
    assert all(account.holders == 0 for account in tunnels.hours._accounts.values())
    assert metrics.sessions_active._value.get() == 0
    ended = sum(counter._value.get() for counter in metrics.sessions_closed.values())
    assert metrics.sessions._value.get() == ended
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
async def test_cancelled_at_every_await_everything_is_given_back(story: Story) -> None:
    for turns in range(MOST_TURNS):
        if not await cancelled_after((turns,), story):
            assert turns > LEAST_TURNS
            return
    raise AssertionError(f"it had not ended after {MOST_TURNS} turns")


@pytest.mark.parametrize("fails_at", [0, 1, 2])
async def test_set_up_that_fails_gives_everything_back_cancelled_or_not(fails_at: int) -> None:
    for turns in range(10):
        await cancelled_after((turns,), client_closes, fails_at)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=2, max_size=5), st.sampled_from(STORIES))
def test_cancelled_again_while_it_ends_everything_is_given_back(turns: list[int], story: Story) -> None:
    asyncio.run(cancelled_after(tuple(turns), story))


async def nothing_gives_way_by_halves(turns: int) -> bool:
    """A new tunnel that another gives way to is cancelled after so many turns; False if it was through."""
    steps, metrics = Steps(), Metrics()
    options = TunnelOptions(times=Times(close_wait_s=0, keep_s=60))
    tunnels = Tunnels(steps, limits=PermitLimits(1, 1, 1), options=options, metrics=metrics)
    first = tasks.spawn(live(tunnels, steps, client_is_lost), name="first")
    while not (tunnels.live and tunnels.live[0].life.phase is Phase.KEPT):  # noqa: ASYNC110
        await asyncio.sleep(0)
    second = tasks.spawn(live(tunnels, steps, client_closes), name="second")
    for _ in range(turns):
        await asyncio.sleep(0)
    was_cancelled = second.cancel()
    async with asyncio.timeout(20):
        await asyncio.wait((second,))
    if tunnels.live and tunnels.live[0].life.phase is Phase.KEPT:
        assert was_cancelled
        assert tunnels.permits.taken == 1, "what was promised counts again"
    tunnels.keep_no_more()
    async with asyncio.timeout(20):
        await asyncio.wait((first, second))
    first.result()
    _comes_out_even(tunnels, steps, metrics)
    return was_cancelled


async def test_new_tunnel_cancelled_while_another_gives_way_holds_nothing() -> None:
    for turns in range(MOST_TURNS):
        if not await nothing_gives_way_by_halves(turns):
            assert turns > LEAST_TURNS
            return
    raise AssertionError(f"it had not ended after {MOST_TURNS} turns")
