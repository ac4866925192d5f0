"""Counters of namespaces become metrics once, whatever netd does meanwhile."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import astuple, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.wait import until

from aero_l2 import tasks
from aero_l2.observe.metrics import Metrics
from aero_l2.session import counting as module
from aero_l2.session.counting import Collector, Reading


class Namespace:
    """A namespace's counters, and how often they were asked for."""

    def __init__(self) -> None:
        self.reading: Reading | None = Reading()
        self.asked = 0
        self.at_once = 0
        self.most_at_once = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def read(self) -> Reading | None:
        self.asked += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.answers.wait()
        finally:
            self.at_once -= 1
        return self.reading


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "INTERVAL_S", 0.01)
    yield
    assert "counters" not in {task.get_name() for task in tasks.running()}


def denied(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("l2_policy_denied_total")


counts = st.builds(Reading, *[st.integers(0, 2**64)] * len(fields(Reading)))


@given(counts, counts)
def test_difference_is_never_negative_and_completes_the_earlier(earlier: Reading, later: Reading) -> None:
    new, before, now = (astuple(reading) for reading in (later.since(earlier), earlier, later))
    assert [b + n for b, n in zip(before, new, strict=True)] == [
        max(b, n) for b, n in zip(before, now, strict=True)
    ]


@pytest.mark.usefixtures("often")
async def test_tunnels_add_up_and_nothing_counts_twice(metrics: Metrics) -> None:
    collector, first, second = Collector(metrics), Namespace(), Namespace()
    async with collector.following(first.read), collector.following(second.read):
        first.reading = Reading(denied=3, udp_flows_refused=1)
        second.reading = Reading(denied=4)
        await until(lambda: denied(metrics) == 7, "both are counted")
        asked = first.asked
        first.reading = None  # netd is away, or new and does not know it yet
        await until(lambda: first.asked > asked + 2, "it is asked on")
        first.reading = Reading(
            denied=5, udp_flows_refused=1, connects_failed=2, datagrams_failed=6, dropped=7
        )
        await until(lambda: denied(metrics) == 9, "only what is new is counted")
    assert denied(metrics) == 9
    assert metrics.registry.get_sample_value("l2_udp_flow_limit_exceeded_total") == 1
    assert metrics.registry.get_sample_value("l2_tcp_connect_fail_total") == 2
    assert metrics.registry.get_sample_value("l2_udp_send_fail_total") == 6
    assert metrics.registry.get_sample_value("l2_frames_dropped_total") == 7


async def test_last_packets_of_a_tunnel_are_counted(metrics: Metrics) -> None:
    namespace = Namespace()
    async with Collector(metrics).following(namespace.read):
        namespace.reading = Reading(denied=2)
    assert (namespace.asked, denied(metrics)) == (1, 2)


async def test_cancelled_tunnel_is_counted_too(metrics: Metrics) -> None:
    namespace = Namespace()
    collector = Collector(metrics)

    async def tunnel() -> None:
        async with collector.following(namespace.read):
            namespace.reading = Reading(denied=2)
            await asyncio.Event().wait()

    task = asyncio.create_task(tunnel())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert (task.cancelled(), denied(metrics)) == (True, 2)


@pytest.mark.usefixtures("often")
async def test_silent_helper_holds_no_end_up_and_is_asked_once_at_a_time(metrics: Metrics) -> None:
    loop = asyncio.get_running_loop()
    namespace = Namespace()
    async with Collector(metrics).following(namespace.read):
        namespace.answers.clear()
        await until(lambda: namespace.at_once == 1, "a reading is under way")
        begun = loop.time()
    assert loop.time() - begun < 5 * module.LAST_READING_S
    assert namespace.most_at_once == 1


@pytest.mark.usefixtures("often")
async def test_mass_end_asks_few_at_once_and_is_bounded(metrics: Metrics) -> None:
    namespace = Namespace()
    namespace.answers.clear()
    collector = Collector(metrics)
    ends = [AsyncExitStack() for _ in range(300)]
    for end in ends:
        await end.enter_async_context(collector.following(namespace.read))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await asyncio.gather(*(end.aclose() for end in ends))
    assert loop.time() - begun < 10 * module.LAST_READING_S
    assert namespace.most_at_once <= 33


async def test_readings_are_spread_over_the_interval(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 0.5)
    collector, namespaces = Collector(metrics), [Namespace() for _ in range(10)]
    async with AsyncExitStack() as stack:
        for namespace in namespaces:
            await stack.enter_async_context(collector.following(namespace.read))
        await until(lambda: sum(n.asked for n in namespaces) >= 5, "half of them were read")
        assert max(n.asked for n in namespaces) == 1
        await until(lambda: all(n.asked for n in namespaces), "all of them were read")
        assert max(n.asked for n in namespaces) <= 2


@pytest.mark.usefixtures("often")
async def test_many_tunnels_are_not_read_more_often_than_is_cheap(metrics: Metrics) -> None:
    loop = asyncio.get_running_loop()
    collector, namespace = Collector(metrics), Namespace()
    async with AsyncExitStack() as stack:
        for _ in range(1000):
            await stack.enter_async_context(collector.following(namespace.read))
        begun = loop.time()
        await until(lambda: namespace.asked >= 20, "some are read")
        assert namespace.asked * module.PAUSE_S <= loop.time() - begun + 2 * module.PAUSE_S
