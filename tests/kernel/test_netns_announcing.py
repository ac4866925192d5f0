"""A tunnel is announced to its NAT process, and ready once that has read it; the test is the NAT process."""

import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from scapy.layers.l2 import ARP, Ether
from support.segment import NFT
from support.wait import wait_until

from netns import queues, tap, vitals
from netns.announcing import WITHIN_S, Announcer
from netns.jobs import Jobs
from netns.namespace import Workshop, make_interior
from netns.segments import Segment
from netns.spec import SegmentSpec


@contextmanager
def untouched() -> Iterator[tuple[Segment, int]]:
    """A namespace from whose tap1 nothing was read yet, and tap1."""
    workshop = Workshop(threads=1)
    interior, nat = workshop.submit(
        lambda: (make_interior(SegmentSpec(), NFT, frozenset(), False), tap.open_tap("tap1"))
    ).result(30)
    try:
        wait_until(lambda: "state UP" in _link(interior.netns), "the link is up")
        yield Segment(interior), nat
    finally:
        os.close(nat)
        interior.close()
        workshop.close()


def _link(netns: int) -> str:
    return _inside(netns, "ip", "link", "show", "tap1")


def _inside(netns: int, *words: str) -> str:
    inside = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{netns}"]
    return subprocess.run([*inside, *words], capture_output=True, text=True, check=True).stdout


class Netd:
    """What of netd's loop an announcement needs."""

    def __init__(self) -> None:
        self.jobs = Jobs()
        self.ready: list[int] = []
        self.announcer = Announcer(self.jobs, self.ready.append)

    def turn_until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end
            if select.select(
                [self.jobs.fileno()], [], [], self.announcer.next_timeout(time.monotonic()) or 0.01
            )[0]:
                self.jobs.run_finished()
            self.announcer.look(time.monotonic())

    def close(self) -> None:
        self.jobs._workshop.close()
        os.close(self.jobs.fileno())


@pytest.fixture
def netd() -> Iterator[Netd]:
    made = Netd()
    yield made
    made.close()


def test_it_is_ready_once_the_announcement_was_read(netd: Netd) -> None:
    with untouched() as (segment, nat):
        netd.announcer.announce(7, segment)
        netd.turn_until(lambda: bool(select.select([nat], [], [], 0)[0]))
        began = time.monotonic()
        netd.announcer.look(began)
        assert netd.ready == [] or time.monotonic() - began > WITHIN_S
        told = Ether(os.read(nat, 2048))[ARP]
        assert (told.psrc, told.pdst) == ("10.0.3.100", "10.0.3.100")
        netd.turn_until(lambda: netd.ready == [7])
        assert netd.announcer.next_timeout(time.monotonic()) is None


def test_nat_process_that_does_not_read_is_not_waited_for(
    netd: Netd, capfd: pytest.CaptureFixture[str]
) -> None:
    with untouched() as (segment, _):
        netd.announcer.announce(7, segment)
        netd.turn_until(lambda: netd.ready == [7])
    said = capfd.readouterr().err
    assert "NAT not announced" in said
    assert "session=7" in said
    assert "its NAT process reads nothing yet" in said


def test_it_is_sent_again_while_the_kernel_does_not_pass_it_on(netd: Netd) -> None:
    """As for a moment after the NAT process has opened its TAP, which is a long one among many tunnels."""
    with untouched() as (segment, nat):
        change = ["tc", "qdisc", "replace", "dev", "tap1", "root"]
        _inside(segment.interior.netns, *change, "bfifo", "limit", "1")
        netd.announcer.announce(7, segment)
        netd.turn_until(lambda: netd.announcer.next_timeout(time.monotonic()) is not None)
        assert not select.select([nat], [], [], 0)[0]
        _inside(segment.interior.netns, *change, "pfifo")
        netd.turn_until(lambda: bool(select.select([nat], [], [], 0)[0]))
        assert Ether(os.read(nat, 2048))[ARP].pdst == "10.0.3.100"
        netd.turn_until(lambda: netd.ready == [7])


def lost(segment: Segment) -> int:
    counters = segment.counters()
    return sum(counters[name] for name in queues.COUNTERS.values())


def test_announcements_that_the_kernel_drops_are_no_losses_of_the_guests(netd: Netd) -> None:
    with untouched() as (segment, nat):
        assert lost(segment) == 0
        _inside(segment.interior.netns, "ip", "link", "set", "tap1", "carrier", "off")
        wait_until(lambda: "state DOWN" in _link(segment.interior.netns), "nobody listens")
        netd.announcer.announce(7, segment)
        netd.turn_until(lambda: _dropped(segment) > 0)
        assert lost(segment) == 0
        _inside(segment.interior.netns, "ip", "link", "set", "tap1", "carrier", "on")
        netd.turn_until(lambda: bool(select.select([nat], [], [], 0)[0]))
        os.read(nat, 2048)
        netd.turn_until(lambda: netd.ready == [7])
        assert lost(segment) == 0
        before = _dropped(segment)
        _inside(segment.interior.netns, "ip", "link", "set", "tap1", "carrier", "off")
        wait_until(lambda: "state DOWN" in _link(segment.interior.netns), "nobody listens")
        with segment.borrowed_route() as route:
            vitals.ask(route)
        wait_until(lambda: _dropped(segment) > before, "a question is lost")
        assert 0 < lost(segment) <= _dropped(segment) - before


def _dropped(segment: Segment) -> int:
    """Packets that tap1 has lost since it was made."""
    with segment.borrowed_route() as route:
        return vitals.taken_and_lost(route)[1]


def test_tunnel_that_is_released_meanwhile_holds_nobody_up(netd: Netd) -> None:
    """Whoever opens and closes tunnels quickly leaves nothing behind that others would wait for."""
    with untouched() as (segment, nat):
        netd.announcer.announce(7, segment)
        netd.turn_until(lambda: bool(select.select([nat], [], [], 0)[0]))
        segment.interior.close()
        netd.turn_until(lambda: netd.announcer.next_timeout(time.monotonic()) is None)
    assert netd.ready == []
