"""The probe's TCP against Linux's own, over a line that loses, doubles and reorders frames both ways."""

from __future__ import annotations

import os
import random
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Interface

import pytest
from support import addresses as at
from support.ns import namespace
from support.nsguest import open_tap
from support.world import serve

from aero_l2.probe.stack import Stack
from aero_l2.probe.tcp import Connection, Ports

GATEWAY = IPv4Address(at.GATEWAY)
_PORT = 50000


class Line:
    """Carries frames between stack and TAP, badly: percentages of what is lost, doubled, held back."""

    def __init__(self, tap: int, stack: Stack, seed: int, bad: int) -> None:
        self._tap = tap
        self._stack = stack
        self._chance = random.Random(seed)
        self._bad = bad
        self._held: list[bytes] = []

    def _mangled(self, frames: list[bytes]) -> list[bytes]:
        kept = [frame for frame in frames if self._chance.randrange(100) >= self._bad]
        doubled = [frame for frame in kept for _ in range(1 + (self._chance.randrange(100) < self._bad))]
        now, self._held = self._held, []
        for frame in doubled:
            (self._held if self._chance.randrange(100) < self._bad else now).append(frame)
        return now

    def turn(self) -> None:
        """Carry what there is, and wait for a millisecond if it is nothing."""
        select.select([self._tap], [], [], 0.001)
        frames = []
        try:
            while len(frames) < 64:
                frames.append(os.read(self._tap, 2048))
        except BlockingIOError:
            pass
        now = time.monotonic()
        for frame in self._mangled(frames):
            self._stack.receive(frame, now)
        self._stack.flush()
        self._stack.tick(now)
        for frame in self._mangled(self._stack.take_frames()):
            os.write(self._tap, frame)


@contextmanager
def lan(seed: int, bad: int) -> Iterator[tuple[Line, Stack]]:
    """A guest's stack, and at the other end of the line a Linux that echoes TCP."""
    with namespace("gateway") as gateway:
        tap = gateway.call(open_tap)
        try:
            gateway.run("ip", "address", "add", f"{GATEWAY}/24", "dev", "eth0")
            gateway.run("ip", "link", "set", "eth0", "up")
            stack = Stack(b"\x02\0\0\0\0\x0f")
            stack.configure(IPv4Interface(f"{at.GUEST}/24"), GATEWAY, 1500)
            with serve(gateway, [("tcp-echo", str(GATEWAY), at.ECHO_PORT)]):
                yield Line(tap, stack, seed, bad), stack
        finally:
            os.close(tap)


def connected(line: Line, stack: Stack, end: float) -> Connection:
    while stack.neighbour(GATEWAY) is None:
        assert time.monotonic() < end
        stack.ask_arp(GATEWAY)
        line.turn()
    connection = stack.connect(GATEWAY, Ports(_PORT, at.ECHO_PORT), 0xFFFF_F000, time.monotonic())
    while not connection.is_established:
        assert connection.fault is None
        assert time.monotonic() < end
        line.turn()
    return connection


@pytest.mark.parametrize(("bad", "size"), [(0, 4_000_000), (2, 300_000), (5, 100_000)])
def test_data_arrives_whole_both_ways_over_a_bad_line(bad: int, size: int) -> None:
    """The echo ends with a trailer after our FIN, so both halves are closed by themselves."""
    data, back, written = random.Random(bad).randbytes(size), bytearray(), 0
    end = time.monotonic() + 60
    with lan(seed=bad, bad=bad) as (line, stack):
        connection = connected(line, stack, end)
        while not connection.has_ended:
            assert connection.fault is None
            assert time.monotonic() < end, f"{written} of {size} bytes away, {len(back)} back"
            written += connection.write(data[written : written + 65536], time.monotonic())
            if written == size:
                connection.close(time.monotonic())
            line.turn()
            back += connection.read()
        assert bytes(back) == data + at.TRAILER
        assert connection.bytes_acknowledged == size
        while not connection.is_over:
            assert time.monotonic() < end
            line.turn()
        assert connection.fault is None
