"""What counting flows costs: ``sudo unshare -n .venv/bin/python bench/flow_events.py``.

CPU time of one process that plays guest and NAT process for whole TCP connections (six packets each) through
a tunnel's namespace, and reads the events of its connection tracking: without events, with all of them, and
with those that the rules and the socket's filter leave. Interleaved; medians.
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "tests")]

from scapy.layers.inet import IP, TCP  # noqa: E402
from scapy.layers.l2 import Ether  # noqa: E402
from support.segment import GUEST_MAC, Segment, segment  # noqa: E402

from netns import conntrack, newflows, ruleset  # noqa: E402
from netns.spec import GATEWAY_MAC, GUEST, NAT_CLIENT, SegmentSpec  # noqa: E402

SERVER = "93.184.216.34"
CONNECTIONS, ROUNDS = 200, 7
ACCEPT_ALL = [(0x06, 0, 0, 0xFFFFFFFF)]
SPEC = SegmentSpec(max_tcp_flows=0, max_udp_flows=0, max_new_flows_per_s=0)


def frames(lan: Segment, sport: int) -> list[tuple[int, bytes]]:
    """One connection: file descriptor and frame, in order."""
    steps = [("S", 1000, 0), ("SA", 7000, 1001), ("A", 1001, 7001)]
    steps += [("FA", 1001, 7001), ("FA", 7001, 1002), ("A", 1002, 7002)]
    made = []
    for number, (flags, seq, ack) in enumerate(steps):
        down = number in (1, 4)
        ports = {"sport": 80, "dport": sport} if down else {"sport": sport, "dport": 80}
        ends = (SERVER, str(NAT_CLIENT)) if down else (str(GUEST), SERVER)
        macs = ("52:55:0a:00:03:02", lan.nat_mac) if down else (GUEST_MAC, GATEWAY_MAC)
        segment = TCP(**ports, flags=flags, seq=seq, ack=ack, window=8192)
        frame = bytes(Ether(src=macs[0], dst=macs[1]) / IP(src=ends[0], dst=ends[1]) / segment)
        made.append((lan.nat if down else lan.interior.tap, frame))
    return made


def drain(fd: int) -> None:
    """Empty a TAP's queue."""
    try:
        while True:
            os.read(fd, 65536)
    except BlockingIOError:
        pass


def read_events(events: socket.socket) -> int:
    """Read and parse what there is; the number of events."""
    count = 0
    while True:
        try:
            conntrack.parse(events.recv(conntrack.MAX_EVENT))
            count += 1
        except BlockingIOError:
            return count
        except OSError:
            continue  # ENOBUFS: ends of earlier connections, which nobody read meanwhile


@contextmanager
def variant(*, rules: bool, kernel_filter: bool) -> Iterator[Segment]:
    """A segment as it is, or without one or the other part."""
    kept = conntrack.kernel_filter, newflows.TCP_EVENTS
    if not kernel_filter:
        conntrack.kernel_filter = lambda: ACCEPT_ALL
    if not rules:
        newflows.TCP_EVENTS = "continue"  # type: ignore[misc]
    ruleset.render.cache_clear()
    with ExitStack() as stack:
        try:
            lan = stack.enter_context(segment(SPEC))
        finally:
            conntrack.kernel_filter, newflows.TCP_EVENTS = kept  # type: ignore[misc]
        yield lan


def main() -> None:
    """Run everything and print the table."""
    with ExitStack() as stack:
        lans = {
            "no events": stack.enter_context(variant(rules=True, kernel_filter=True)),
            "all events": stack.enter_context(variant(rules=False, kernel_filter=False)),
            "rules only": stack.enter_context(variant(rules=True, kernel_filter=False)),
            "filter only": stack.enter_context(variant(rules=False, kernel_filter=True)),
            "rules and filter": stack.enter_context(variant(rules=True, kernel_filter=True)),
        }
        os.close(lans["no events"].interior.flows)
        lans["no events"].interior.flows = -1
        readers = {
            name: socket.socket(fileno=os.dup(lan.interior.flows))
            for name, lan in lans.items()
            if lan.interior.flows >= 0
        }
        costs: dict[str, list[float]] = {name: [] for name in lans}
        events: dict[str, float] = dict.fromkeys(lans, 0.0)
        for turn in range(ROUNDS + 1):
            for name, lan in lans.items():
                first = 1024 + turn * CONNECTIONS
                todo = [frames(lan, port) for port in range(first, first + CONNECTIONS)]
                count, began = 0, time.process_time()
                for connection in todo:
                    for fd, frame in connection:
                        os.write(fd, frame)
                    drain(lan.nat)
                    drain(lan.interior.tap)
                    if name in readers:
                        count += read_events(readers[name])
                spent = (time.process_time() - began) / CONNECTIONS * 1e6
                if turn:  # the first round warms up
                    costs[name].append(spent)
                    events[name] = count / CONNECTIONS
        print("| | events a connection | CPU µs a connection, median (min-max) |\n|---|---|---|")
        for name, spent_us in costs.items():
            row = f"{statistics.median(spent_us):.0f} ({min(spent_us):.0f}-{max(spent_us):.0f})"
            print(f"| {name} | {events[name]:.1f} | {row} |")


if __name__ == "__main__":
    main()
