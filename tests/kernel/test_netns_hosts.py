"""What netd takes for the host, followed in a namespace whose addresses and routes change."""

import time
from collections.abc import Iterator
from ipaddress import IPv4Network

import pytest
from support.ns import Namespace, namespace

from netns.hosts import HostMonitor

FIRST, SECOND = IPv4Network("203.0.113.9/32"), IPv4Network("203.0.113.10/32")


@pytest.fixture
def host() -> Iterator[Namespace]:
    with namespace("monitored") as made:
        yield made


def address(host: Namespace, what: str, network: IPv4Network) -> None:
    host.run("ip", "address", what, str(network), "dev", "lo")


def test_news_is_looked_at_at_once(host: Namespace) -> None:
    def follow() -> None:
        monitor = HostMonitor()
        assert monitor.next_timeout(time.monotonic()) is None
        for what, expected in (("add", frozenset({FIRST})), ("del", frozenset())):
            address(host, what, FIRST)
            monitor.listen(1.0)
            assert monitor.next_timeout(1.0) == 0.0
            assert monitor.look(1.0)
            assert monitor.networks == expected

    host.call(follow)


def test_look_that_came_too_early_is_repeated(host: Namespace) -> None:
    """A route's end is announced before the route leaves the table; that look must not be the last."""

    def follow() -> None:
        address(host, "add", FIRST)
        monitor = HostMonitor()
        address(host, "add", SECOND)
        monitor.listen(1.0)
        assert monitor.look(1.0)
        assert monitor.networks == {FIRST, SECOND}
        address(host, "del", FIRST)  # as if it had been announced already
        assert not monitor.look(1.05)
        assert monitor.next_timeout(1.05) == pytest.approx(0.05)
        assert monitor.look(1.1)
        assert monitor.networks == {SECOND}
        address(host, "del", SECOND)
        assert monitor.look(2.0)
        assert monitor.networks == frozenset()
        assert monitor.next_timeout(2.0) is None
        assert not monitor.look(3.0)

    host.call(follow)


def test_routes_elsewhere_are_no_news(host: Namespace) -> None:
    def follow() -> None:
        host.run("ip", "link", "set", "lo", "up")
        monitor = HostMonitor()
        host.run("ip", "route", "add", "198.51.100.0/24", "dev", "lo")
        monitor.listen(1.0)
        assert monitor.next_timeout(1.0) is None
        host.run("ip", "route", "add", "local", "203.0.113.0/24", "dev", "lo")
        monitor.listen(1.0)
        assert monitor.look(1.0)
        assert monitor.networks == {IPv4Network("203.0.113.0/24")}

    host.call(follow)
