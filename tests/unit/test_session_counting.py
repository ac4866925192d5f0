"""Counters of namespaces become metrics once, whatever netd does meanwhile."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.wait import until

from aero_l2 import tasks
from aero_l2.observe.metrics import Metrics
from aero_l2.observe.metrics.host import NETD_RESULTS
from aero_l2.observe.metrics.sessions import NETD_STEPS
from aero_l2.observe.metrics.traffic import DENIED_REASONS, IGNORED_REASONS, LIMITS
from aero_l2.session import counting as module
from aero_l2.session.counting import Collector, Reading
from netns.account import KINDS
from netns.ruleset import COUNTERS, DENIED_COUNTERS, IGNORED_COUNTERS, LIMIT_COUNTERS, LOST_COUNTERS
from netns.stopwatch import STEPS


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


counts = st.dictionaries(st.sampled_from(["limit_udp", "failed_tcp", "ipv6"]), st.integers(0, 2**64))


@given(counts, counts)
def test_difference_is_never_negative_and_completes_the_earlier(
    earlier: dict[str, int], later: dict[str, int]
) -> None:
    new = Reading(later).since(Reading(earlier))
    for name, packets in later.items():
        before = earlier.get(name, 0)
        assert before + new.get(name, 0) == max(before, packets)
    assert set(new) <= set(later)
    assert all(packets > 0 for packets in new.values())


def test_every_counter_of_a_namespace_moves_a_metric_and_every_label_is_one_of_them(
    metrics: Metrics,
) -> None:
    moved = module.counters_of(metrics)
    assert set(moved) == {*COUNTERS, *LOST_COUNTERS, "denied_query", "limit_bytes"}
    assert {*module.LOST_RX, *module.LOST_TX} == set(LOST_COUNTERS)
    assert tuple(f"denied_{reason}" for reason in DENIED_REASONS if reason != "query") == DENIED_COUNTERS
    assert set(LIMIT_COUNTERS) == {f"limit_{limit}" for limit in LIMITS if limit != "bytes"}
    assert IGNORED_COUNTERS == IGNORED_REASONS
    assert NETD_STEPS == STEPS
    assert set(NETD_RESULTS) == set(KINDS)


def test_each_counter_moves_what_it_stands_for_and_sums_agree(metrics: Metrics) -> None:
    for number, counters in enumerate(module.counters_of(metrics).values(), 1):
        for counter in counters:
            counter.inc(number)
    for total, parts in (
        ("l2_frames_dropped_total", "aero_l2_frames_dropped"),
        ("l2_policy_denied_total", "aero_l2_policy_denied"),
    ):
        family = next(family for family in metrics.registry.collect() if family.name == parts)
        values = [sample.value for sample in family.samples]
        assert metrics.registry.get_sample_value(total) == sum(values) > 0


async def test_nothing_is_read_where_nothing_is_counted() -> None:
    namespace = Namespace()
    async with Collector(Metrics(is_on=False)).following(namespace.read):
        pass
    assert namespace.asked == 0


@pytest.mark.usefixtures("often")
async def test_tunnels_add_up_and_nothing_counts_twice(metrics: Metrics) -> None:
    collector, first, second = Collector(metrics), Namespace(), Namespace()
    async with collector.following(first.read), collector.following(second.read):
        first.reading = Reading({"denied_host": 3, "limit_udp": 1})
        second.reading = Reading({"denied_port": 4})
        await until(lambda: denied(metrics) == 7, "both are counted")
        asked = first.asked
        first.reading = None  # netd is away, or new and does not know it yet
        await until(lambda: first.asked > asked + 2, "it is asked on")
        first.reading = Reading(
            {"denied_host": 5, "limit_udp": 1, "failed_tcp": 2, "failed_udp": 6, "full_queue_rx": 7}
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
        namespace.reading = Reading({"denied_host": 2})
    assert (namespace.asked, denied(metrics)) == (1, 2)


async def test_cancelled_tunnel_is_counted_too(metrics: Metrics) -> None:
    namespace = Namespace()
    collector = Collector(metrics)

    async def tunnel() -> None:
        async with collector.following(namespace.read):
            namespace.reading = Reading({"denied_host": 2})
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
