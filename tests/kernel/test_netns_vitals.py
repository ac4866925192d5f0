"""What netd reads of a NAT process, and the question that it puts on its TAP."""

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from scapy.layers.l2 import ARP, Ether
from support.segment import Segment, segment
from support.wait import wait_until

from netns import vitals
from netns.children import Child, Children
from netns.health import LOOK_S
from netns.segments import Segment as KeptSegment
from netns.spec import SegmentSpec
from netns.watch import HealthWatch

ASKED = "10.0.3.3"


@pytest.fixture
def lan() -> Iterator[Segment]:
    with segment(SegmentSpec()) as made:
        yield made


@pytest.fixture
def idle() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has work every 50 ms, as a NAT process has every second."""
    program = "import time\nwhile True: time.sleep(0.05)"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        yield process
        process.kill()


def _question(lan: Segment) -> None:
    """Read what the NAT process would, until the question."""
    wait_until(lambda: any(ARP in frame and frame[ARP].pdst == ASKED for frame in _frames(lan)), "a question")


def _frames(lan: Segment) -> list[Ether]:
    try:
        return [Ether(os.read(lan.nat, 65536))]
    except BlockingIOError:
        return []


def test_each_question_arrives_and_what_is_taken_counts(lan: Segment) -> None:
    os.set_blocking(lan.nat, False)
    with KeptSegment(lan.interior).borrowed_route() as route:
        before = vitals.ask(route)
        for _ in range(2):  # an earlier one that was answered, or not, stands in no later one's way
            _question(lan)
            after = vitals.ask(route)
            assert after > before
            before = after
        vitals.forget(route)
        vitals.forget(route)


def test_what_is_given_counts_too(lan: Segment) -> None:
    with KeptSegment(lan.interior).borrowed_route() as route:
        before = vitals.ask(route)
        reply = ARP(op=2, psrc=ASKED, hwsrc="52:55:0a:00:03:03", pdst="10.0.3.100", hwdst=lan.nat_mac)
        os.write(lan.nat, bytes(Ether(src="52:55:0a:00:03:03", dst=lan.nat_mac) / reply))
        assert vitals.ask(route) == before + 1
        vitals.forget(route)


def test_question_leaves_no_neighbour(lan: Segment) -> None:
    with KeptSegment(lan.interior).borrowed_route() as route:
        for _ in range(5):
            vitals.ask(route)
        assert ASKED in _neighbours(lan)
        vitals.forget(route)
        assert ASKED not in _neighbours(lan)


def _neighbours(lan: Segment) -> str:
    inside = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{lan.interior.netns}"]
    command = [*inside, "ip", "neighbour", "show", "nud", "all"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_states_and_sleeps(idle: subprocess.Popen[bytes]) -> None:
    _, before = vitals.state_and_sleeps(idle.pid)
    wait_until(lambda: vitals.state_and_sleeps(idle.pid)[1] > before, "it has slept")
    assert vitals.cpu_s(idle.pid) >= 0
    os.kill(idle.pid, signal.SIGSTOP)
    wait_until(lambda: vitals.state_and_sleeps(idle.pid)[0] == "T", "it is stopped")
    assert vitals.parent_of(idle.pid) == os.getpid()


def test_pidfd_tells_its_process_until_that_has_ended(idle: subprocess.Popen[bytes]) -> None:
    pidfd = os.pidfd_open(idle.pid)
    try:
        assert vitals.pid_of(pidfd) == idle.pid
        idle.kill()
        idle.wait(10)
        assert vitals.pid_of(pidfd) is None
    finally:
        os.close(pidfd)
    with pytest.raises(OSError, match="not a process"), open(os.devnull) as file:
        vitals.pid_of(file.fileno())
    with pytest.raises(OSError, match="No such"):
        vitals.state_and_sleeps(idle.pid)


def test_only_a_process_that_was_left_to_the_supervisor_is_adopted(idle: subprocess.Popen[bytes]) -> None:
    with selectors.DefaultSelector() as selector:
        children = Children(selector, lambda _: None)
        ours, strange, itself = (os.pidfd_open(pid) for pid in (idle.pid, os.getppid(), os.getpid()))
        supervisor = os.getpid()
        for pidfd, parent in ((strange, supervisor), (itself, os.getppid()), (ours, os.getppid())):
            with pytest.raises(OSError, match="no NAT process"):
                children.adopt(pidfd, parent)
        assert len(children) == 0
        adopted = children.adopt(ours, supervisor)
        assert adopted is not None
        children.expect_end(adopted, 0.0, "is late")
        children.kill_overdue(time.monotonic())
        assert idle.wait(10) == -signal.SIGKILL
        for key, _ in selector.select(10):
            key.data()
        assert len(children) == 0
        assert children.adopt(ours, supervisor) is None, "it has ended"
        for pidfd in (ours, strange, itself):
            os.close(pidfd)


def test_stopped_process_is_named_once_and_one_that_ended_never(idle: subprocess.Popen[bytes]) -> None:
    sick: list[tuple[int, str]] = []
    watch = HealthWatch(lambda identifier, _, why: sick.append((identifier, why)))
    with segment(SegmentSpec()) as lan:
        child = Child(idle.pid, os.pidfd_open(idle.pid))
        watch.add(7, KeptSegment(lan.interior, nat=child), 0.0)
        os.kill(idle.pid, signal.SIGSTOP)
        wait_until(lambda: vitals.state_and_sleeps(idle.pid)[0] == "T", "it is stopped")
        for look in range(1, 20):
            watch.look(look * LOOK_S)
        assert sick == [(7, "it is stopped")]
        assert watch.next_timeout(0.0) is None
        watch.add(8, KeptSegment(lan.interior, nat=child), 0.0)
        idle.kill()
        idle.wait(10)
        for look in range(1, 20):
            watch.look(look * LOOK_S)
        assert len(sick) == 1
        os.close(child.pidfd)


def test_looks_of_one_turn_are_bounded(idle: subprocess.Popen[bytes]) -> None:
    watch = HealthWatch(lambda *_: None)
    with segment(SegmentSpec()) as lan:
        child = Child(idle.pid, os.pidfd_open(idle.pid))
        for number in range(1000):
            watch.add(number, KeptSegment(lan.interior, nat=child), 0.0)
        turns = 0
        while watch.next_timeout(LOOK_S) == 0.0:
            watch.look(LOOK_S)
            turns += 1
        assert turns > 10
        assert watch.next_timeout(LOOK_S) == pytest.approx(LOOK_S)
        os.close(child.pidfd)


def test_route_without_the_interface_is_an_error() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as route:
        route.bind((0, 0))
        with pytest.raises(OSError, match="netlink"):
            vitals.ask(route)
