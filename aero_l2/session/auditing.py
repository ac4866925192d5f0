"""A tunnel's flows and refused packets, from its namespace into the audit log.

A flow's line comes with the event of its end, which has its counters. What is alive when the tunnel ends is
looked up once more. The firewall counts flows as they begin, so that none is missing in silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from aero_l2.observe.audit.flows import Ending, FlowEnd, Sent
from aero_l2.observe.audit.session import SessionAudit
from netns import conntrack, denials, details
from netns.auditrules import FLOWS
from netns.client import NetdClient
from netns.errors import NetnsError
from netns.flows import MAX_FLOWS, FlowWatch
from netns.handles import SegmentHandles
from netns.spec import GUEST, LOOPBACK, NAT_HOST, Forward

LAST_LOOK_S: Final = 1.0
"""What netd may take to look up flows that are alive at a tunnel's end."""
_AGAIN_S: Final = 0.1
_ROUNDS: Final = 2
_PER_TURN: Final = 64
_MOST_COPIES: Final = 1024
"""More than the socket holds."""
_PROTOCOLS: Final = {conntrack.TCP: "tcp", conntrack.UDP: "udp", details.ICMP: "icmp"}


@dataclass(slots=True)
class _Begun:
    """A flow that is alive, or not forgotten yet. started, since: unix and monotonic seconds, None where
    nobody saw it begin. over: when its TCP connection was closed; it is forgotten up to a minute later."""

    ends: details.Ends
    name: str | None = None
    started: float | None = None
    since: float | None = None
    over: float | None = None


class Auditing:
    """Of one tunnel, between `start` and `finish`; a `netns.flows.Listener`.

    forwards: to tell what the guest dialled of what a refused packet's header says.
    """

    def __init__(
        self, audit: SessionAudit, netd: NetdClient, handles: SegmentHandles, forwards: Sequence[Forward]
    ) -> None:
        self.audit = audit
        self._netd = netd
        self._handles = handles
        self._forwards: dict[tuple[str, str, int | None], Forward]
        self._forwards = {(f.protocol, _via(f), f.target_port): f for f in forwards}
        self._live: dict[int, _Begun] = {}
        self._told = 0
        self._since: tuple[set[int], set[int]] | None = None
        """While a dump is under way: what began and what ended since."""
        self._finished: set[int] | None = None
        self._losses = self._asked_after = self._made_up_for = 0
        """Times that events were lost: all, those before a dump was asked for, those that one made up for."""
        self._counted: int | None = None
        self._denials: socket.socket | None = None

    def start(self) -> None:
        """Begin to read of refused packets. Raises OSError."""
        self._denials = socket.socket(fileno=self._handles.denials)
        asyncio.get_running_loop().add_reader(self._handles.denials, self._read_denials)

    # -- flows

    def event(self, data: bytes, flow: conntrack.Flow | None) -> None:
        """A flow began, was closed, or is forgotten."""
        found = details.of_event(data)
        if found is None:
            if flow is not None and flow.over and flow.flow in self._live:
                self._live[flow.flow].over = time.monotonic()
            return
        began, facts = found
        if self._since is not None:
            self._since[0 if began else 1].add(facts.flow)
        if not began:
            if self._finished is None or facts.flow not in self._finished:
                self._tell(facts, self._live.pop(facts.flow, None), _ending(facts, is_over=True))
        elif len(self._live) < MAX_FLOWS:
            far, _ = _far_end(facts.ends)
            name = self.audit.name_of(socket.inet_ntoa(far))
            self._live[facts.flow] = _Begun(facts.ends, name, time.time(), time.monotonic())

    def lost(self) -> None:
        """Events were; a dump follows."""
        self._losses += 1

    def resyncing(self) -> None:
        """It begins."""
        self._since = (set(), set())
        self._asked_after = self._losses

    async def resync(self) -> bytes | None:
        """Have everything dumped that there is: an `netns.flows.Ask`."""
        try:
            packed = await self._netd.flows(self._handles, ())
        except NetnsError:
            packed = None
        if packed is None or self._finished is not None:
            self._since = None
            return None
        self.audit.incomplete(None, "events were lost")
        active = []
        there: set[int] = set()
        began, ended = self._since or (set(), set())
        for number, facts in enumerate(details.unpack(packed)):
            there.add(facts.flow)
            if facts.flow not in self._live and facts.flow not in ended:
                self._live[facts.flow] = _Begun(facts.ends)
            if facts.state not in (details.TIME_WAIT, details.CLOSE):
                active.append(conntrack.Flow(facts.ends.protocol, facts.flow, False, b""))
            if number % _PER_TURN == 0:
                await asyncio.sleep(0)
        if self._finished is not None:  # whoever ends it looks once more
            return None
        self._made_up_for = self._asked_after
        await self._tell_unseen([flow for flow in self._live if flow not in there and flow not in began])
        self._since = None
        return conntrack.pack(active)

    async def finish(self, watch: FlowWatch) -> None:
        """Tell of all flows that are alive; nothing comes from the guest any more."""
        self._finished = set()
        try:
            with contextlib.suppress(TimeoutError):
                for _ in range(_ROUNDS):
                    await watch.drain()
                    await self._look_alive_up()
                if self._losses > self._made_up_for:
                    await self._tell_alive(())
        finally:
            self.stop_reading()
        self._counted = None
        await self._tell_unseen(tuple(self._live), "tunnel_end")

    async def _look_alive_up(self) -> None:
        alive = iter(tuple(begun.ends for begun in self._live.values()))
        while wanted := tuple(islice(alive, details.MAX_WANTED)):
            await self._tell_alive(wanted)

    async def _tell_alive(self, wanted: tuple[details.Ends, ...]) -> None:
        """Tell of these flows, or of all there are where none is named. Raises TimeoutError."""
        assert self._finished is not None
        packed = None
        async with asyncio.timeout(LAST_LOOK_S):
            while packed is None:
                with contextlib.suppress(NetnsError):
                    packed = await self._netd.flows(self._handles, wanted)
                if packed is None:  # netd is about to come back
                    await asyncio.sleep(_AGAIN_S)
        for number, facts in enumerate(details.unpack(packed)):
            begun = self._live.pop(facts.flow, None)
            if facts.flow not in self._finished and (begun is not None or not wanted):
                self._finished.add(facts.flow)
                self._tell(facts, begun, _ending(facts, is_over=False))
            if number % _PER_TURN == 0:
                await asyncio.sleep(0)

    async def _tell_unseen(self, flows: Iterable[int], ended: Ending = "unknown") -> None:
        """Of flows whose end nobody saw, nor what went through."""
        for number, flow in enumerate(flows):
            begun = self._live.pop(flow, None)
            if begun is not None:
                self._told += 1
                self.audit.flow(_flow_end(begun.ends, begun, ended))
            if number % _PER_TURN == 0:
                await asyncio.sleep(0)

    def _tell(self, facts: details.Facts, begun: _Begun | None, ended: Ending) -> None:
        self._told += 1
        self.audit.flow(_flow_end(facts.ends, begun, ended, facts))

    # -- what the firewall counts

    def counted(self, counters: Mapping[str, int]) -> None:
        """Its counters, by name. What they count has been copied before, where it was."""
        self._read_denials(_MOST_COPIES)
        self._counted = counters.get(FLOWS)
        self.audit.counted(counters)

    def check(self) -> None:
        """After the last counters: say how many flows are missing, if any are."""
        if self._counted is None:
            self.audit.incomplete(None, "the last counters could not be read")
        elif self._counted > self._told or self._losses:
            self.audit.incomplete(max(0, self._counted - self._told), "events were lost")

    def _read_denials(self, most: int = _PER_TURN) -> None:
        if self._denials is None:
            return
        for _ in range(most):
            try:
                data = self._denials.recv(denials.MAX_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:  # some are lost: their counters know
                continue
            for denial in denials.parse(data):
                self._deny(denial)

    def _deny(self, denial: denials.Denial) -> None:
        protocol = _PROTOCOLS.get(denial.protocol, str(denial.protocol))
        rule = denial.rule.removeprefix("denied_")
        if not denial.is_forwarded:
            self.audit.denied(rule, protocol, denial.address, denial.port, None)
        elif forward := self._forwards.get((protocol, denial.address, denial.port)):
            target = (str(forward.target), forward.target_port)
            self.audit.denied(rule, protocol, str(forward.address), forward.port, target)
        else:
            self.audit.denied(rule, protocol, None, None, None)

    def stop_reading(self) -> None:
        """Touch the handles no more; idempotent."""
        if self._denials is not None:
            self._read_denials(_MOST_COPIES)
            asyncio.get_running_loop().remove_reader(self._handles.denials)
            self._denials.detach()
            self._denials = None


def _via(forward: Forward) -> str:
    """The address that a forward's packets get."""
    return str(NAT_HOST if forward.needs_host_loopback else forward.target)


def _far_end(ends: details.Ends) -> tuple[bytes, int]:
    """Address and port of whom the guest talks to, whoever began."""
    is_ours = ends.source == GUEST.packed
    return (ends.target, ends.target_port) if is_ours else (ends.source, ends.source_port)


def _flow_end(
    ends: details.Ends, begun: _Begun | None, ended: Ending, facts: details.Facts | None = None
) -> FlowEnd:
    has_ports = ends.protocol != details.ICMP
    is_ours = ends.source == GUEST.packed
    far, far_port = _far_end(ends)
    guest_port = ends.source_port if is_ours else (facts.answers_port if facts is not None else None)
    begun = begun or _Begun(ends)
    return FlowEnd(
        protocol=_PROTOCOLS[ends.protocol],
        begun_by_guest=is_ours,
        guest_port=guest_port if has_ports else None,
        address=socket.inet_ntoa(far),
        port=far_port if has_ports else None,
        target=_target(facts) if facts is not None and is_ours and has_ports else None,
        name=begun.name,
        ended=ended,
        started=begun.started,
        duration_s=None if begun.since is None else (begun.over or time.monotonic()) - begun.since,
        sent=_sent(facts, is_ours) if facts is not None and facts.is_counted else None,
    )


def _target(facts: details.Facts) -> tuple[str, int] | None:
    """Who answers, where that is another than the guest has dialled."""
    if (facts.answers, facts.answers_port) == (facts.ends.target, facts.ends.target_port):
        return None
    is_host = facts.answers == NAT_HOST.packed
    return str(LOOPBACK) if is_host else socket.inet_ntoa(facts.answers), facts.answers_port


def _sent(facts: details.Facts, is_ours: bool) -> Sent:
    there = (facts.bytes_sent, facts.packets_sent)
    back = (facts.bytes_got, facts.packets_got)
    return Sent(*there, *back) if is_ours else Sent(*back, *there)


def _ending(facts: details.Facts, *, is_over: bool) -> Ending:
    """How it ended, or that only its tunnel did."""
    is_tcp, state = facts.ends.protocol == conntrack.TCP, facts.state
    if is_tcp and state == details.TIME_WAIT:
        return "closed"
    if is_tcp and state == details.CLOSE:
        if facts.status & details.ASSURED or facts.status & details.SEEN_REPLY:
            return "reset"
        return "refused" if facts.packets_got else "unanswered"
    if not is_over:
        return "tunnel_end"
    if is_tcp and state in (details.SYN_SENT, details.SYN_RECEIVED):
        return "unanswered"
    return "idle" if facts.status & details.SEEN_REPLY else "unanswered"
