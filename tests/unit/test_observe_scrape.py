"""Rendering beside tunnels: the library's text, made in slices, once for all who ask together."""

from __future__ import annotations

import asyncio
import time

import pytest
from prometheus_client import generate_latest

from aero_l2.observe import scrape as module
from aero_l2.observe.metrics import Metrics
from aero_l2.observe.scrape import Scrapes


@pytest.fixture
def metrics() -> Metrics:
    """With some of everything in it, odd label values too."""
    made = Metrics()
    made.describe_build('0.1 "x"', "a\\b", "line\nbreak")
    made.frames_rx.value += 12345678901234
    made.ping_rtt_ms.observe(0.1)
    made.capacity_max["pids"].set(float("inf"))
    made.process_fds["netd"].set(float("nan"))
    made.policy_denied["host"].inc(3)
    made.setup_seconds["turn"].observe(0.3)
    return made


async def test_text_is_the_librarys(metrics: Metrics) -> None:
    assert await Scrapes(metrics).ask() == generate_latest(metrics.registry)


async def test_who_asks_together_shares_one_rendering(metrics: Metrics) -> None:
    scrapes = Scrapes(metrics)
    texts = await asyncio.gather(*(scrapes.ask() for _ in range(20)))
    assert len(set(texts)) == scrapes.renderings == 1
    await scrapes.ask()
    assert scrapes.renderings == 2


async def test_who_asks_while_one_is_made_gets_the_next(metrics: Metrics) -> None:
    """So what a client did before its scrape is in it."""
    looking, go_on = asyncio.Event(), asyncio.Event()

    async def look() -> None:
        looking.set()
        await go_on.wait()

    scrapes = Scrapes(metrics, look)
    first = scrapes.ask()
    await looking.wait()
    metrics.frames_tx.value += 7
    second, third = scrapes.ask(), scrapes.ask()
    assert second is third is not first
    go_on.set()
    await first
    assert b"\nl2_frames_tx_total 7.0\n" in await second
    assert scrapes.renderings == 2


async def test_loop_runs_between_slices(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE_S", 0.0)
    turns = 0
    rendering = Scrapes(metrics).ask()
    while not rendering.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns >= len(metrics.collectors) - 2


async def test_sums_hold_however_long_the_text_takes(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLICE_S", 0.0)
    rendering = Scrapes(metrics).ask()
    while not rendering.done():
        await asyncio.sleep(0)
        metrics.policy_denied["port"].inc()
        metrics.dropped_tx["queue"].inc()
    values = dict(
        line.rsplit(" ", 1) for line in rendering.result().decode().splitlines() if not line.startswith("#")
    )
    for total in ("l2_policy_denied_total", "l2_frames_dropped_total"):
        parts = [float(value) for name, value in values.items() if name.startswith(f"aero_{total}{{")]
        assert float(values[total]) == sum(parts)


async def test_failure_is_everybodys_and_the_next_one_may_succeed(metrics: Metrics) -> None:
    def broken() -> float:
        raise RuntimeError("no such file")

    metrics.dns_pending.set_function(broken)
    scrapes = Scrapes(metrics)
    with pytest.raises(RuntimeError):
        await scrapes.ask()
    metrics.dns_pending.set_function(lambda: 0)
    assert await scrapes.ask()


async def test_longest_slice_is_short(metrics: Metrics) -> None:
    """The goal is 5 ms; the machine may be busy, so the best of some counts."""
    scrapes, longest = Scrapes(metrics), []
    for _ in range(20):
        rendering, worst, last = scrapes.ask(), 0.0, time.perf_counter()
        while not rendering.done():
            await asyncio.sleep(0)
            now = time.perf_counter()
            worst, last = max(worst, now - last), now
        longest.append(worst)
    assert min(longest) < 0.005
