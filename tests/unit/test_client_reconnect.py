"""One tunnel after the other: when, how long in between, and when no more."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.peer import Peer, close, ethernet, frame, serving
from support.wait import until

from aero_l2.client import (
    CredentialRefused,
    InvalidTarget,
    Options,
    ReconnectPolicy,
    State,
    Status,
    Target,
    Tunnel,
    TunnelClosed,
    TunnelLost,
    Unavailable,
    run_reconnecting,
)
from aero_l2.client.errors import refusal

OPTIONS = Options(keepalive_s=0, open_timeout_s=20)
QUICK = ReconnectPolicy(first_s=0.01, longest_s=0.05, lasting_s=60)


async def restarts(peer: Peer) -> None:
    peer.accept(behind=close(1001, "shutting down"))
    await peer.gone()


async def breaks(peer: Peer) -> None:
    peer.accept()
    await peer.writer.drain()
    peer.writer.transport.abort()


async def refuses(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
    await peer.writer.drain()


async def forbids(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 401 No\r\nContent-Length: 13\r\n\r\ninvalid token")
    await peer.writer.drain()


async def works(peer: Peer) -> None:
    peer.accept(behind=ethernet(b"at last"))
    await peer.receive()
    peer.send(frame(0x8, b"\x03\xe8"))


async def first_frame(tunnel: Tunnel) -> None:
    assert await tunnel.receive_frames() == [b"at last"]


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_delay_grows_to_the_longest_with_jitter(failures: int, chance: float) -> None:
    policy = ReconnectPolicy()
    whole = min(30.0, 0.5 * 2 ** min(failures - 1, 60))
    assert whole / 2 <= policy.delay_s(failures, None, chance) <= whole


def test_delay_is_not_shorter_than_the_server_asks_within_reason() -> None:
    policy = ReconnectPolicy()
    assert policy.delay_s(1, 20.0, 0.5) == 20.0
    assert policy.delay_s(1, 0.0, 0.5) == 0.375
    assert policy.delay_s(1, 999_999.0, 0.5) == 300.0


def test_gives_up_after_so_many_failures_or_where_it_is_no_use() -> None:
    policy = ReconnectPolicy(attempts=3)
    assert [policy.gives_up(TunnelLost("?"), n) for n in (1, 2, 3, 4)] == [False, False, True, True]
    assert not ReconnectPolicy().gives_up(TunnelLost("?"), 10_000)
    assert ReconnectPolicy().gives_up(refusal(401, ""), 1)


async def test_opens_the_next_tunnel_until_the_work_is_done() -> None:
    told: list[Status] = []
    async with serving(restarts, refuses, breaks, works, handshake=False) as server:
        await run_reconnecting(server.url, first_frame, OPTIONS, QUICK, told.append)
    assert [status.state for status in told] == [
        *(State.CONNECTING, State.OPEN, State.WAITING),
        *(State.CONNECTING, State.WAITING),
        *(State.CONNECTING, State.OPEN, State.WAITING),
        *(State.CONNECTING, State.OPEN),
    ]
    assert [status.attempt for status in told] == [1, 1, 1, 2, 2, 3, 3, 3, 4, 4]
    ends = [type(status.error) for status in told if status.state is State.WAITING]
    assert ends == [TunnelClosed, Unavailable, TunnelLost]
    assert all(status.delay_s > 0 for status in told if status.state is State.WAITING)
    assert all((status.tunnel is not None) is (status.state is State.OPEN) for status in told)


async def test_tunnel_that_lasted_starts_over() -> None:
    told: list[Status] = []
    policy = ReconnectPolicy(first_s=0.01, longest_s=0.05, lasting_s=0)
    async with serving(restarts, restarts, restarts, works, handshake=False) as server:
        await run_reconnecting(server.url, first_frame, OPTIONS, policy, told.append)
    assert {status.attempt for status in told if status.state is State.WAITING} == {1}


async def test_refused_credential_ends_it() -> None:
    async with serving(restarts, forbids, handshake=False) as server:
        with pytest.raises(CredentialRefused, match="invalid token"):
            await run_reconnecting(server.url, first_frame, OPTIONS, QUICK)
        assert len(server.peers) == 2


async def test_last_failure_is_raised_after_so_many_attempts() -> None:
    async with serving(refuses, handshake=False) as server:
        policy = ReconnectPolicy(first_s=0.01, attempts=3)
        with pytest.raises(Unavailable):
            await run_reconnecting(server.url, first_frame, OPTIONS, policy)
        assert len(server.peers) == 3


async def test_target_may_be_made_anew_for_each_attempt() -> None:
    made: list[str] = []
    async with serving(restarts, works, handshake=False) as server:

        def target() -> Target:
            made.append(f"{server.url}?attempt={len(made)}")
            return Target.of(made[-1])

        await run_reconnecting(target, first_frame, OPTIONS, QUICK)
        assert [peer.request.split()[1] for peer in server.peers] == ["/l2?attempt=0", "/l2?attempt=1"]


async def test_errors_of_the_program_pass_through_and_close_the_tunnel() -> None:
    async def serve(tunnel: Tunnel) -> None:
        raise KeyError("of the program")

    async with serving(works, handshake=False) as server:
        with pytest.raises(KeyError):
            await run_reconnecting(server.url, serve, OPTIONS, QUICK)
    with pytest.raises(InvalidTarget):
        await run_reconnecting("nonsense", serve, OPTIONS, QUICK)


@pytest.mark.parametrize("script", [refuses, works])
async def test_cancelled_at_any_time_it_ends_and_closes(script: object) -> None:
    async def serve(tunnel: Tunnel) -> None:
        await tunnel.wait_closed()

    async with serving(script, handshake=False) as server:  # type: ignore[arg-type]
        told: list[Status] = []
        policy = ReconnectPolicy(first_s=60)
        running = asyncio.ensure_future(run_reconnecting(server.url, serve, OPTIONS, policy, told.append))
        await until(lambda: told and told[-1].state is not State.CONNECTING, "open or waiting")
        running.cancel()
        (end,) = await asyncio.wait_for(asyncio.gather(running, return_exceptions=True), 10)
        assert isinstance(end, asyncio.CancelledError)
