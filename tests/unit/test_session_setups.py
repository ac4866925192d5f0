"""Set-ups take turns; whoever is cancelled, at whatever await, gives the turn up."""

import asyncio
import random

import pytest
from support.wait import until

from aero_l2.errors import Overloaded
from aero_l2.quota.turns import TurnLimits
from aero_l2.session import setups as module
from aero_l2.session.setups import BUSY, NO_TURN, Setups


async def hold(setups: Setups, client: str, begun: list[str], end: asyncio.Event) -> None:
    """One set-up that takes until ``end``."""
    async with setups.turn(client):
        begun.append(client)
        await end.wait()


def held(setups: Setups, *clients: str) -> tuple[list[asyncio.Task[None]], list[str], asyncio.Event]:
    """Set-ups of clients, begun in this order once the loop runs."""
    begun: list[str] = []
    end = asyncio.Event()
    return [asyncio.create_task(hold(setups, client, begun, end)) for client in clients], begun, end


async def test_others_wait_for_their_turn() -> None:
    setups = Setups(TurnLimits(2, 10))
    tasks, begun, end = held(setups, *"aaabc")
    await until(lambda: setups.waiting == 3, "three wait")
    assert (begun, setups.active) == (["a", "a"], 2)
    end.set()
    await asyncio.gather(*tasks)
    assert begun == ["a", "a", "a", "b", "c"]
    assert (setups.active, setups.waiting) == (0, 0)


async def test_who_leaves_while_waiting_gives_the_place_up_at_once() -> None:
    setups = Setups(TurnLimits(1, 1))
    tasks, begun, end = held(setups, "a", "b")
    await until(lambda: setups.waiting == 1, "one waits")
    assert setups.refusal("c") == BUSY
    tasks[1].cancel()
    await asyncio.wait(tasks[1:])
    assert (setups.waiting, setups.refusal("c")) == (0, None)
    end.set()
    await tasks[0]
    assert begun == ["a"]


async def test_one_too_many_is_refused_and_a_quiet_client_gets_a_loud_ones_place() -> None:
    setups = Setups(TurnLimits(1, 2))
    tasks, begun, end = held(setups, "x", "a", "a", "a", "b")
    await until(lambda: tasks[2].done() and tasks[3].done(), "two are refused")
    for task in tasks[2:4]:
        with pytest.raises(Overloaded, match=BUSY):
            task.result()
    end.set()
    await asyncio.gather(tasks[0], tasks[1], tasks[4])
    assert begun == ["x", "a", "b"]


async def test_waiting_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.02)
    setups = Setups(TurnLimits(1, 2))
    tasks, begun, end = held(setups, "a", "b")
    with pytest.raises(Overloaded, match=NO_TURN):
        await tasks[1]
    end.set()
    await tasks[0]
    assert (begun, setups.active, setups.waiting) == (["a"], 0, 0)


async def test_time_out_inside_the_turn_is_not_taken_for_ours() -> None:
    setups = Setups(TurnLimits(1, 2))
    with pytest.raises(TimeoutError):
        async with setups.turn("a"):
            raise TimeoutError
    assert setups.active == 0


async def test_host_without_room_is_asked_when_the_turn_comes() -> None:
    setups = Setups(TurnLimits(1, 2))
    tasks, _, end = held(setups, "a", "b")
    await until(lambda: setups.waiting == 1, "one waits")
    setups.room = lambda: "no memory"
    end.set()
    with pytest.raises(Overloaded, match="no memory") as caught:
        await tasks[1]
    assert caught.value.kind == "room"
    assert setups.active == 0


async def test_more_turns_at_once_take_effect_at_once() -> None:
    setups = Setups(TurnLimits(1, 10))
    tasks, begun, end = held(setups, *"abc")
    await until(lambda: setups.waiting == 2, "two wait")
    setups.limits = TurnLimits(3, 10)
    await until(lambda: len(begun) == 3, "all have their turn")
    end.set()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("seed", range(40))
async def test_turns_are_exact_whoever_is_cancelled_whenever(seed: int) -> None:
    """Cancelled in the same turn of the loop as granted, pushed out or finished, too."""
    chance = random.Random(seed)
    setups = Setups(TurnLimits(2, 5))
    most = 0

    async def one(client: str) -> None:
        nonlocal most
        async with setups.turn(client):
            most = max(most, setups.active)
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)

    tasks = []
    for _ in range(200):
        tasks.append(asyncio.create_task(one(chance.choice("abc"))))
        if chance.random() < 0.5:
            await asyncio.sleep(0)
        if chance.random() < 0.4:
            chance.choice(tasks).cancel()
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert {type(result) for result in results} <= {type(None), asyncio.CancelledError, Overloaded}
    assert (setups.active, setups.waiting) == (0, 0)
    assert 0 < most <= 2
