"""How metrics are declared: made once, all their children too, so that counting costs one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

_T = TypeVar("_T")


class Nothing:
    """Stands in for every metric where nothing is to be counted."""

    def inc(self, amount: float = 1) -> None:
        """Count nothing."""

    dec = set = observe = set_function = inc
    value = 0


NOTHING: Final = Nothing()


class Plain(Collector):
    """A counter for what happens with each batch of frames: `value += n`, in the event loop's thread only.

    0.02 µs, where the library's counter, made for any number of threads, takes 0.2.
    """

    def __init__(self, name: str, text: str, registry: CollectorRegistry) -> None:
        self._name, self._text, self.value = name, text, 0
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Its name, so that nothing else is called so."""
        return [CounterMetricFamily(self._name, self._text)]

    def collect(self) -> Iterable[Metric]:
        """Its one sample."""
        return [CounterMetricFamily(self._name, self._text, self.value)]


class Sum(Collector):
    """A counter that is the sum of the children of others: it cannot differ from them."""

    def __init__(self, name: str, text: str, parts: Sequence[Counter], registry: CollectorRegistry) -> None:
        self._name, self._text, self._parts = name, text, parts
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Its name, so that nothing else is called so."""
        return [CounterMetricFamily(self._name, self._text)]

    def collect(self) -> Iterable[Metric]:
        """Its one sample."""
        samples = (sample for part in self._parts for family in part.collect() for sample in family.samples)
        return [CounterMetricFamily(self._name, self._text, sum(sample.value for sample in samples))]


class _Registry(CollectorRegistry):
    """Keeps the order of what is declared."""

    def __init__(self) -> None:
        super().__init__()
        self.collectors: list[Collector] = []

    def register(self, collector: Collector) -> None:
        super().register(collector)
        self.collectors.append(collector)


class Declarer:
    """Declares metrics in a registry of its own.

    is_on: False declares none, and whatever counts does nothing.
    """

    def __init__(self, *, is_on: bool = True) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.is_on = is_on
        self.registry = _Registry()

    @property
    def collectors(self) -> Sequence[Collector]:
        """Each metric by itself, in the order of their declaration; a sum stands behind its parts."""
        return self.registry.collectors

    def _counter(self, name: str, text: str) -> Counter:
        return self._made(Counter, name, text)

    def _plain(self, name: str, text: str) -> Plain:
        return Plain(name, text, self.registry) if self.is_on else cast(Plain, Nothing())

    def _gauge(self, name: str, text: str) -> Gauge:
        return self._made(Gauge, name, text)

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return self._made(Histogram, name, text, buckets=buckets)

    def _counters(self, name: str, text: str, label: str, values: Iterable[str]) -> dict[str, Counter]:
        parent = self._made(Counter, name, text, labelnames=[label])
        return {value: self._child(parent, value) for value in values}

    def _gauges(self, name: str, text: str, label: str, values: Iterable[str]) -> dict[str, Gauge]:
        parent = self._made(Gauge, name, text, labelnames=[label])
        return {value: self._child(parent, value) for value in values}

    def _histograms(
        self, name: str, text: str, label: str, values: Iterable[str], buckets: Sequence[float]
    ) -> dict[str, Histogram]:
        parent = self._made(Histogram, name, text, labelnames=[label], buckets=buckets)
        return {value: self._child(parent, value) for value in values}

    def _grid(
        self, name: str, text: str, labels: tuple[str, str], values: Mapping[str, Sequence[str]]
    ) -> dict[str, dict[str, Counter]]:
        """Counters by two labels: to each value of the first those of the second that go with it."""
        parent = self._made(Counter, name, text, labelnames=labels)
        return {
            one: {other: self._child(parent, one, other) for other in others}
            for one, others in values.items()
        }

    def _sum(self, name: str, text: str, parts: Sequence[Counter]) -> None:
        if self.is_on:
            Sum(name, text, parts, self.registry)

    def _made(self, kind: type[_T], name: str, text: str, **more: Any) -> _T:
        if not self.is_on:
            return cast(_T, NOTHING)
        return kind(name, text, registry=self.registry, **more)  # type: ignore[call-arg]

    def _child(self, parent: _T, *values: str) -> _T:
        return cast(_T, cast(Any, parent).labels(*values)) if self.is_on else parent
