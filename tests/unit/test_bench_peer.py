"""The far end of `./dev bench`, which stands on a network where others may find it."""

from __future__ import annotations

import itertools
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import procfs
from support.wait import wait_until

from bench import peer

TREE = Path(__file__).parents[2]
PEER = (sys.executable, "-m", "bench", "peer")
_addresses = itertools.count(1)


@dataclass
class Peer:
    """A running one."""

    address: str
    process: subprocess.Popen[str]

    def connect(self, port: int) -> socket.socket:
        return socket.create_connection((self.address, port), timeout=10)

    def echoes(self) -> bool:
        """Whether somebody who comes now is served."""
        with self.connect(peer.ECHO) as connection:
            try:
                connection.sendall(b"hello")
                return connection.recv(5, socket.MSG_WAITALL) == b"hello"
            except ConnectionError:
                return False

    def threads(self) -> int:
        return int(procfs.status(self.process.pid)["Threads"])

    def rss_mib(self) -> float:
        return int(procfs.status(self.process.pid)["VmRSS"].split()[0]) / 1024


@contextmanager
def serving(command: Sequence[str] = PEER, stdin: int = subprocess.DEVNULL) -> Iterator[Peer]:
    """One on an address of its own."""
    address = f"127.0.78.{next(_addresses)}"
    process = subprocess.Popen(
        [*command, address], cwd=TREE, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield Peer(address, process)
    finally:
        process.kill()
        process.wait(10)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_of_its_own_serves_until_a_signal_whatever_its_standard_input(number: signal.Signals) -> None:
    with serving() as one:
        with pytest.raises(subprocess.TimeoutExpired):
            one.process.wait(0.5)
        assert one.echoes()
        one.process.send_signal(number)
        assert one.process.wait(10) == 0


def test_child_of_a_run_ends_with_its_standard_input() -> None:
    with serving((*PEER, peer.UNTIL_EOF), subprocess.PIPE) as one:
        assert one.echoes()
        assert one.process.stdin is not None
        one.process.stdin.close()
        assert one.process.wait(10) == 0


@pytest.mark.parametrize("limit", ["--nofile=20", "--as=300000000"], ids=["descriptors", "threads"])
def test_it_serves_on_when_the_system_has_had_nothing_left(limit: str) -> None:
    with serving(("prlimit", limit, *PEER)) as one:
        with ExitStack() as stack:
            for _ in range(50):
                stack.enter_context(one.connect(peer.ECHO))
        wait_until(one.echoes, "it serves", 10)


def test_who_comes_beyond_its_places_is_closed_at_once_and_each_takes_little() -> None:
    with serving() as one, ExitStack() as stack:
        assert one.echoes()
        wait_until(lambda: one.threads() == len(peer._HANDLERS) + 1, "its place is free")
        before = one.rss_mib()
        held = [stack.enter_context(one.connect(peer.SINK)) for _ in range(peer.PLACES)]
        for connection in held:
            connection.sendall(bytes(1 << 20))
        wait_until(lambda: one.threads() == peer.PLACES + len(peer._HANDLERS) + 1, "all are taken")
        for _ in range(300):
            with one.connect(peer.ECHO) as beyond:
                assert not beyond.recv(1)
        assert one.threads() == peer.PLACES + len(peer._HANDLERS) + 1
        assert one.rss_mib() < before + 16
        held.pop().close()
        wait_until(one.echoes, "a place is free")


def test_silence_ends_a_connection() -> None:
    program = "import sys; from bench import peer; peer.SILENCE_S = 0.3; peer.main(sys.argv[1:])"
    with serving((sys.executable, "-c", program)) as one:
        for port in peer._HANDLERS:
            with one.connect(port) as connection:
                assert not connection.recv(1)
        with one.connect(peer.SOURCE) as connection:  # asks, and does not take it
            connection.sendall(peer.MOST.to_bytes(8))
            wait_until(lambda: one.threads() == len(peer._HANDLERS) + 1, "it has ended")


def test_too_much_is_not_sent() -> None:
    with serving() as one, one.connect(peer.SOURCE) as connection:
        connection.sendall((peer.MOST + 1).to_bytes(8))
        assert not connection.recv(1)


def test_flood_ends_when_its_client_has_gone() -> None:
    with serving() as one, socket.socket(type=socket.SOCK_DGRAM) as flow:
        with one.connect(peer.DATAGRAMS) as control:
            control.sendall(b"d" + (10_000).to_bytes(4))
            flow.settimeout(10)
            flow.sendto(b"here", (one.address, int.from_bytes(control.recv(2, socket.MSG_WAITALL))))
            assert len(flow.recv(2048)) == peer.PAYLOAD
        wait_until(lambda: one.threads() == len(peer._HANDLERS) + 1, "the flood is over", 3)


def test_who_floods_on_when_a_run_is_over_is_not_waited_for() -> None:
    with serving() as one, one.connect(peer.DATAGRAMS) as control:
        control.sendall(b"u")
        there = (one.address, int.from_bytes(control.recv(2, socket.MSG_WAITALL)))
        control.sendall(b".")
        control.setblocking(False)
        end = time.monotonic() + 10
        with socket.socket(type=socket.SOCK_DGRAM) as flow:
            while time.monotonic() < end:
                flow.sendto(b"more", there)
                try:
                    assert int.from_bytes(control.recv(8)) > 0
                    return
                except BlockingIOError:
                    continue
    pytest.fail("there was no answer")


def test_address_that_is_not_here_is_said_in_a_line() -> None:
    done = subprocess.run([*PEER, "192.0.2.1"], cwd=TREE, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("bench: peer cannot listen: Cannot assign requested address")
