"""The count of a tunnel's active flows, against what connection tracking itself lists."""

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Packet
from support.segment import Segment, segment
from support.wait import until

from netns import conntrack, netlink
from netns.errors import NetdUnavailable
from netns.flows import FlowWatch, Resync
from netns.spec import GATEWAY, GUEST, NAT_CLIENT, SegmentSpec

PUBLIC = "93.184.216.34"
UNLIMITED = SegmentSpec(max_tcp_flows=0, max_udp_flows=0, max_new_flows_per_s=0)


@pytest.fixture
def lan() -> Iterator[Segment]:
    with segment(UNLIMITED, allow_ping=True) as made:
        yield made


@dataclass
class Counts:
    """What a watch told, added up."""

    tcp: int = 0
    udp: int = 0
    dumps: int = 0
    tasks: list["asyncio.Task[None]"] = field(default_factory=list)

    def add(self, tcp: int, udp: int) -> None:
        self.tcp += tcp
        self.udp += udp

    @property
    def both(self) -> tuple[int, int]:
        return self.tcp, self.udp


@contextmanager
def watched(
    lan: Segment, ask: Callable[[], Awaitable[bytes | None]] | None = None
) -> Iterator[tuple[FlowWatch, Counts]]:
    """A watch of the segment's events that asks connection tracking as netd does."""
    counts = Counts()

    async def dump() -> bytes:
        counts.dumps += 1
        return conntrack.pack(dumped(lan))

    def spawn(coroutine: object, name: str) -> "asyncio.Task[None]":
        counts.tasks.append(asyncio.ensure_future(coroutine))  # type: ignore[arg-type]
        return counts.tasks[-1]

    watch = FlowWatch(lan.interior.flows, counts.add, ask or dump, Resync(spawn, pause_s=0.05))
    watch.start()
    try:
        yield watch, counts
    finally:
        watch.close()
        for task in counts.tasks:
            task.cancel()


def dumped(lan: Segment) -> list[conntrack.Flow]:
    with socket.socket(fileno=os.dup(lan.interior.netlink)) as connection:
        return conntrack.dump(connection)


def listed(lan: Segment) -> tuple[int, int]:
    flows = dumped(lan)
    return sum(f.protocol == conntrack.TCP for f in flows), sum(f.protocol == conntrack.UDP for f in flows)


def tcp(sport: int, flags: str, seq: int, ack: int = 0) -> Packet:
    return IP(src=str(GUEST), dst=PUBLIC) / TCP(sport=sport, dport=80, flags=flags, seq=seq, ack=ack)


def udp(sport: int) -> Packet:
    return IP(src=str(GUEST), dst=PUBLIC) / UDP(sport=sport, dport=99) / b"x"


def answer(lan: Segment, sport: int, flags: str, seq: int, ack: int) -> None:
    segment = TCP(sport=80, dport=sport, flags=flags, seq=seq, ack=ack, window=8192)
    lan.send_from_nat(IP(src=PUBLIC, dst=str(NAT_CLIENT)) / segment)
    lan.judge()


def connect(lan: Segment, sport: int) -> None:
    lan.judge(tcp(sport, "S", 1000), leaving=1)
    answer(lan, sport, "SA", 7000, 1001)
    lan.judge(tcp(sport, "A", 1001, 7001), leaving=1)


async def test_flows_are_counted_from_begin_to_end(lan: Segment) -> None:
    with watched(lan) as (_, counts):
        for sport in (4001, 4002, 4003):
            connect(lan, sport)
        lan.judge(udp(5001), udp(5002), udp(5002), leaving=3)
        await until(lambda: counts.both == (3, 2) == listed(lan), "three and two")
        lan.judge(tcp(4001, "R", 1001), leaving=1)
        await until(lambda: counts.tcp == 2, "a reset one is over")
        lan.judge(tcp(4002, "FA", 1001, 7001), leaving=1)
        await until(lambda: counts.tcp == 2 == listed(lan)[0], "one that is half closed is not")
        answer(lan, 4002, "FA", 7001, 1002)
        lan.judge(tcp(4002, "A", 1002, 7002), leaving=1)
        await until(lambda: counts.tcp == 1 == listed(lan)[0], "TIME_WAIT is over")
        connect(lan, 4002)
        await until(lambda: counts.both == (2, 2) == listed(lan), "the same ports again are a flow again")
        assert counts.dumps == 0
    assert counts.both == (0, 0)


async def test_pings_refused_packets_and_the_gateways_services_are_no_flows(lan: Segment) -> None:
    with watched(lan) as (_, counts):
        ping = IP(src=str(GUEST), dst=PUBLIC) / ICMP(id=7)
        denied = IP(src=str(GUEST), dst="10.0.3.2") / TCP(dport=80, flags="S")
        query = IP(src=str(GUEST), dst=str(GATEWAY)) / UDP(sport=5000, dport=53) / b"?"
        lan.judge(ping, denied, query, udp(5001), leaving=2)
        await until(lambda: counts.both == (0, 1), "the one datagram")


@pytest.mark.slow
async def test_lost_events_are_made_up_for(lan: Segment) -> None:
    with watched(lan) as (_, counts):
        for first in range(10000, 13000, 50):
            lan.judge(*map(udp, range(first, first + 50)), leaving=50)
        assert counts.both == (0, 0), "nothing has been read yet"
        await until(lambda: counts.both == (0, 3000) == listed(lan), "all of them", 20)
        assert counts.dumps >= 1
        lan.judge(udp(20000), leaving=1)
        await until(lambda: counts.udp == 3001, "and one more")


@pytest.mark.slow
async def test_dump_that_fails_is_asked_for_again_and_events_meanwhile_have_the_last_word(
    lan: Segment,
) -> None:
    answers = 0

    async def ask() -> bytes | None:
        nonlocal answers
        answers += 1
        if answers == 1:
            raise NetdUnavailable("away")
        if answers == 2:
            return None
        flows = dumped(lan)
        lan.judge(udp(30000), leaving=1)
        await asyncio.sleep(0.1)
        return conntrack.pack(flows)

    with watched(lan, ask) as (watch, counts):
        for first in range(10000, 12000, 50):
            lan.judge(*map(udp, range(first, first + 50)), leaving=50)
        await until(lambda: answers == 3 and counts.both == (0, 2001) == listed(lan), "all of them", 20)
        watch.close()
        assert counts.both == (0, 0)


@pytest.mark.slow
async def test_closed_watch_asks_for_nothing(lan: Segment) -> None:
    with watched(lan) as (watch, counts):
        for first in range(10000, 12000, 50):
            lan.judge(*map(udp, range(first, first + 50)), leaving=50)
        watch.close()
        await asyncio.sleep(0.2)
        assert (counts.dumps, counts.both) == (0, (0, 0))


def test_events_of_another_namespace_do_not_come(lan: Segment) -> None:
    with segment(UNLIMITED) as other:
        other.judge(udp(5001), leaving=1)
    with socket.socket(fileno=os.dup(lan.interior.flows)) as events, pytest.raises(BlockingIOError):
        events.recv(4096)


def test_kernel_sends_three_events_for_a_tcp_connection_and_two_for_udp(lan: Segment) -> None:
    connect(lan, 4001)
    lan.judge(tcp(4001, "FA", 1001, 7001), leaving=1)
    answer(lan, 4001, "FA", 7001, 1002)
    lan.judge(tcp(4001, "A", 1002, 7002), udp(5001), udp(5001), leaving=3)
    forget = struct.pack("=IHHIIBBH", 20, 0x102, 5, 1, 0, socket.AF_INET, 0, 0)  # IPCTNL_MSG_CT_DELETE, all
    with socket.socket(fileno=os.dup(lan.interior.netlink)) as connection:
        connection.send(forget)
        for _, payload in netlink.split(connection.recv(4096)):
            netlink.raise_error(payload)
    found = []
    with socket.socket(fileno=os.dup(lan.interior.flows)) as events:
        for data in iter(partial(_receive, events), b""):
            flow = conntrack.parse(data)
            assert flow is not None
            found.append((flow.protocol, flow.over))
    assert sorted(found) == [(6, False), (6, True), (6, True), (17, False), (17, True)]


def _receive(events: socket.socket) -> bytes:
    try:
        return events.recv(4096)
    except BlockingIOError:
        return b""
