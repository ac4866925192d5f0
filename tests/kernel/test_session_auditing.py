"""Flows of a real namespace on their way into the audit log, where events are lost and netd is away."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Packet
from support.audit import Sheet, check
from support.segment import Segment, segment
from support.wait import until

from aero_l2.observe.audit.session import SessionAudit
from aero_l2.session.auditing import Auditing
from netns import conntrack, details
from netns.client import NetdClient
from netns.errors import NetdUnavailable
from netns.flows import FlowWatch, Resync
from netns.handles import SegmentHandles
from netns.spec import GUEST, SegmentSpec

PUBLIC = "93.184.216.34"
UNLIMITED = SegmentSpec(max_tcp_flows=0, max_udp_flows=0, max_new_flows_per_s=0, audit=True)


class Netd(NetdClient):
    """Looks flows up as netd does, unless it is away."""

    def __init__(self, lan: Segment) -> None:
        self.lan = lan
        self.asked: list[int] = []
        self.is_away = False

    async def flows(self, handles: SegmentHandles, wanted: tuple[details.Ends, ...] | None = None) -> bytes:
        await asyncio.sleep(0)
        if self.is_away:
            raise NetdUnavailable("away")
        assert wanted is not None
        self.asked.append(len(wanted))
        with socket.socket(fileno=os.dup(self.lan.interior.netlink)) as connection:
            return details.read(connection, wanted)


@pytest.fixture
def lan() -> Iterator[Segment]:
    with segment(UNLIMITED) as made:
        yield made


def udp(sport: int) -> Packet:
    return IP(src=str(GUEST), dst=PUBLIC) / UDP(sport=sport, dport=99) / b"x"


def begin(lan: Segment, ports: range) -> None:
    for first in ports[::50]:
        lan.judge(*map(udp, range(first, min(first + 50, ports.stop))), leaving=min(50, ports.stop - first))


class Run:
    """One tunnel's auditing."""

    def __init__(self, lan: Segment, watch: FlowWatch, auditing: Auditing, netd: Netd, sheet: Sheet) -> None:
        self.lan = lan
        self.watch = watch
        self.auditing = auditing
        self.netd = netd
        self.sheet = sheet

    async def end(self) -> None:
        """As a segment's end has it."""
        await self.auditing.finish(self.watch)
        self.watch.close()
        self.auditing.counted(self.lan.counters())
        self.auditing.check()
        self.auditing.audit.end()
        for line in self.sheet.lines[:20] + self.sheet.lines[-20:]:
            check(line)


@asynccontextmanager
async def auditing(lan: Segment) -> AsyncIterator[Run]:
    loop = asyncio.get_running_loop()
    sheet, netd = Sheet(), Netd(lan)
    fds = dict.fromkeys(("netns", "tap", "exit_pipe", "process", "stderr", "dhcp", "dns_udp", "dns_tcp"), -1)
    handles = SegmentHandles(
        1, **fds, flows=-1, nat_ready=loop.create_future(), nat_sick=loop.create_future(),
        denials=lan.interior.denials,
    )  # fmt: skip
    made = Auditing(SessionAudit(sheet, 1, "198.51.100.7", None), netd, handles, ())
    tasks: list[asyncio.Task[None]] = []

    def spawn(coroutine: Any, name: str) -> asyncio.Task[None]:
        tasks.append(asyncio.ensure_future(coroutine))
        return tasks[-1]

    watch = FlowWatch(lan.interior.flows, lambda *_: None, made.resync, Resync(spawn, pause_s=0.05), made)
    watch.start()
    made.start()
    try:
        yield Run(lan, watch, made, netd, sheet)
    finally:
        watch.close()
        made.stop_reading()
        for task in tasks:
            task.cancel()


def small_buffer(lan: Segment) -> None:
    """As of a kernel that allows no more."""
    with socket.socket(fileno=os.dup(lan.interior.flows)) as events:
        events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, conntrack.RECEIVE_BUFFER // 2)


async def test_flows_that_are_alive_at_the_end_are_looked_up_one_by_one(lan: Segment) -> None:
    async with auditing(lan) as run:
        begin(lan, range(10000, 10700))
        await run.end()
        assert run.netd.asked == [512, 188]
        assert run.sheet.flows() == 700
        assert {flow["bytes_sent"] for flow in run.sheet.of("flow")} == {29}
        assert not run.sheet.of("incomplete")


async def test_flows_whose_begin_was_lost_are_found(lan: Segment) -> None:
    small_buffer(lan)
    async with auditing(lan) as run:
        begin(lan, range(10000, 12000))
        await until(lambda: 0 in run.netd.asked, "all flows are asked for", 20)
        await run.end()
        assert run.sheet.flows() == 2000
        assert [line["flows"] for line in run.sheet.of("incomplete")] == [None, 0]


async def test_flows_that_nobody_saw_are_counted(lan: Segment) -> None:
    """They have begun, and are forgotten, before anybody looks."""
    small_buffer(lan)
    async with auditing(lan) as run:
        begin(lan, range(10000, 12000))
        forget = conntrack.request(2, 4)  # IPCTNL_MSG_CT_DELETE, all
        with socket.socket(fileno=os.dup(lan.interior.netlink)) as connection:
            connection.send(forget)
            connection.recv(4096)
        await run.end()
        (line,) = run.sheet.of("incomplete")
        assert line["flows"] > 0
        assert run.sheet.flows() + line["flows"] == 2000


async def test_end_of_a_flow_that_was_lost_is_said_at_the_next_look(lan: Segment) -> None:
    async with auditing(lan) as run:
        begin(lan, range(10000, 10010))
        await until(lambda: len(run.auditing._live) == 10, "all are seen")
        run.auditing.resyncing()
        packed = details.unpack(await run.netd.flows(run.auditing._handles, ()))
        gone = {facts.flow for facts in list(packed)[:4]}
        run.auditing._live.update({flow + 1: run.auditing._live.pop(flow) for flow in gone})
        await run.auditing.resync()
        unknown = run.sheet.of("flow")
        assert [(flow["ended"], flow["bytes_sent"]) for flow in unknown] == [("unknown", None)] * 4
        assert len(run.auditing._live) == 10, "and the four that are there are known again"


async def test_netd_that_is_away_is_waited_for_and_then_said(lan: Segment) -> None:
    async with auditing(lan) as run:
        begin(lan, range(10000, 10010))
        run.netd.is_away = True
        asyncio.get_running_loop().call_later(0.3, setattr, run.netd, "is_away", False)
        await run.end()
        assert {flow["bytes_sent"] for flow in run.sheet.of("flow")} == {29}
    async with auditing(lan) as run:
        begin(lan, range(20000, 20010))
        run.netd.is_away = True
        await run.auditing.finish(run.watch)
        run.auditing.check()
        assert {flow["bytes_sent"] for flow in run.sheet.of("flow")} == {None}
        assert [line["why"] for line in run.sheet.of("incomplete")] == ["the last counters could not be read"]
