"""How many flows a tunnel may begin in a second, and connects that its guest gives up, by packets."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet
from support.segment import GUEST_MAC, Segment, segment
from support.wait import wait_until

from netns import newflows
from netns.spec import GATEWAY_MAC, GUEST, NAT_CLIENT, NAT_HOST, SegmentSpec

PUBLIC = "93.184.216.34"
ANOTHER = "93.184.216.35"
PRIVATE = "10.1.2.3"
SPEC = SegmentSpec(
    special=(IPv4Network("10.0.0.0/8"),), max_tcp_flows=0, max_udp_flows=0, max_new_flows_per_s=1
)
BURST = 2
MANY_FLOWS = 1000


def tcp(sport: int, flags: str = "S", seq: int = 1000, dst: str = PUBLIC) -> Packet:
    return IP(src=str(GUEST), dst=dst) / TCP(sport=sport, dport=80, flags=flags, seq=seq)


def udp(sport: int, dst: str = PUBLIC) -> Packet:
    return IP(src=str(GUEST), dst=dst) / UDP(sport=sport, dport=99) / b"x"


def ping(number: int) -> Packet:
    return IP(src=str(GUEST), dst=PUBLIC) / ICMP(id=number)


def dropped(lan: Segment) -> int:
    return lan.counters()["limit_new_flows"]


def test_all_kinds_of_flows_share_the_limit_and_those_beyond_are_dropped_in_silence() -> None:
    with segment(SPEC, allow_ping=True) as lan:
        back, left = lan.judge(tcp(1), udp(2), ping(3), udp(4), tcp(5), leaving=BURST)
        assert (len(left), back, dropped(lan)) == (BURST, [], 5 - BURST)
        assert wait_until(lambda: lan.judge(tcp(5))[1], "the SYN that is sent again passes")


def test_packets_of_flows_that_began_and_denied_ones_use_nothing_up() -> None:
    with segment(SPEC, allow_ping=True) as lan:
        lan.judge(*[tcp(sport, dst=PRIVATE) for sport in range(50)], *[udp(9, dst=PRIVATE)] * 50)
        again = [tcp(1), udp(2)] * 20
        _, left = lan.judge(*again, leaving=len(again))
        assert (len(left), dropped(lan)) == (len(again), 0)


def server_dropped(lan: Segment) -> int:
    return lan.counters()["limit_server"]


def test_connects_to_one_server_have_a_rate_of_their_own_and_it_takes_nothing_from_others() -> None:
    burst = newflows.TO_ONE_SERVER_BURST
    with segment(replace(SPEC, max_new_flows_per_s=burst)) as lan:  # all together: twice as many at once
        began = time.monotonic()
        lan.judge(*(tcp(sport) for sport in range(1, 4 * burst)))
        most = burst + 1 + (time.monotonic() - began) * newflows.TO_ONE_SERVER_PER_SECOND
        assert burst <= 4 * burst - 1 - server_dropped(lan) <= most
        others = tcp(1, dst=ANOTHER), IP(src=str(GUEST), dst=PUBLIC) / TCP(sport=1, dport=81), udp(1)
        _, left = lan.judge(*others, leaving=len(others))
        assert (len(left), dropped(lan)) == (len(others), 0)


def test_servers_beyond_those_that_are_told_apart_share_one_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newflows, "MAX_CONNECTED", 8)
    burst = newflows.TO_ONE_SERVER_BURST
    with segment(replace(SPEC, max_new_flows_per_s=10_001)) as lan:  # a ruleset that no other test rendered
        began = time.monotonic()
        servers = [str(IPv4Address(PUBLIC) + n) for n in range(2 * burst)]
        lan.judge(*(tcp(1, dst=server) for server in servers))
        most = 8 + burst + 1 + (time.monotonic() - began) * newflows.TO_ONE_SERVER_PER_SECOND
        assert 8 + burst <= len(servers) - server_dropped(lan) <= most
        _, left = lan.judge(tcp(2, dst=servers[0]), leaving=1)
        assert len(left) == 1


def test_zero_is_no_limit() -> None:
    with segment(replace(SPEC, max_new_flows_per_s=0)) as lan:
        _, left = lan.judge(*map(udp, range(1, 91)), leaving=90)
        assert (len(left), dropped(lan)) == (90, 0)


def test_reset_of_a_connect_that_nobody_answered_passes_and_what_comes_then_counts_nothing() -> None:
    with segment(replace(SPEC, max_new_flows_per_s=0)) as lan:
        _, left = lan.judge(tcp(1), leaving=1)
        _, resets = lan.judge(tcp(1, "R", 1001), leaving=1)
        assert resets[0][TCP].flags == "R"
        refusal = TCP(sport=80, dport=left[0].sport, flags="RA", ack=1001)
        lan.send_from_nat(IP(src=PUBLIC, dst=str(NAT_CLIENT)) / refusal)
        lan.send_from_nat(IP(src=str(NAT_HOST), dst=str(NAT_CLIENT)) / ICMP(type=3, code=1) / left[0][IP])
        lan.judge()
        counters = lan.counters()
        assert (counters["failed_tcp"], counters["denied_stray"]) == (0, 0)


def test_reset_out_of_nowhere_is_refused() -> None:
    with segment(SPEC) as lan:
        _, left = lan.judge(tcp(1, "R", 1001), tcp(2, "RA", 1001))
        counters = lan.counters()
        assert (left, counters["denied_stray"] + counters["invalid"]) == ([], 2)


def _cpu_seconds(lan: Segment, frames: Sequence[bytes]) -> float:
    """What the frames cost their sender: the rules run within its write(2)."""
    before = time.thread_time()
    for frame in frames:
        os.write(lan.interior.tap, frame)
    return time.thread_time() - before


@pytest.mark.slow
def test_syns_sent_again_cost_no_more_where_there_are_many_flows() -> None:
    """`ct count` walks all flows of the namespace: ten times the price of everything else together."""
    spec = replace(SPEC, max_tcp_flows=MANY_FLOWS, max_new_flows_per_s=0)
    syns = [bytes(Ether(src=GUEST_MAC, dst=GATEWAY_MAC) / tcp(n)) for n in range(1, 1 + MANY_FLOWS)]
    with segment(spec) as few, segment(spec) as many:
        _cpu_seconds(few, syns[:1])
        _cpu_seconds(many, syns)
        costs = [(_cpu_seconds(few, syns[:1] * MANY_FLOWS), _cpu_seconds(many, syns)) for _ in range(9)]
        assert many.counters()["limit_tcp"] == 0
        _, left = many.judge(tcp(1 + MANY_FLOWS))
        assert (many.counters()["limit_tcp"], TCP in left) == (1, False)
    assert min(dear for _, dear in costs) < 3 * min(cheap for cheap, _ in costs)
