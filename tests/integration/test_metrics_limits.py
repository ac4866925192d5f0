"""What limits refuse and queues lose, on the real proxy: the same number wherever it is counted.

How much a limit of so many a second lets pass is a matter of time; how exactly it counts show tests/kernel.
"""

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.packet import Raw
from support import addresses as at
from support import floods
from support.counting import SOON_S, Counting
from support.proxy import RunAs, run_proxy
from support.rawguest import RawGuest, raw_guest
from support.wait import until
from support.world import World

pytestmark = pytest.mark.slow

_WEB, _GATEWAY = IPv4Address(at.WEB).packed, IPv4Address(at.GATEWAY).packed
_RATE = {"AERO_L2_MAX_NEW_FLOWS_PER_SECOND": "20"}
_BYTES = {"AERO_L2_MAX_BYTES_PER_SECOND": "100000"}
_NAMES = {"AERO_L2_ALLOWED_DOMAINS": "allowed.test"}
Frames = Callable[[RawGuest], Iterable[bytes]]


def _pings(guest: RawGuest) -> Iterable[bytes]:
    for number in range(100):
        ping = IP(src=at.GUEST, dst=at.GATEWAY) / ICMP(id=9, seq=number) / Raw(b"ping")
        yield bytes(guest.frame(ping))


def _fragments(guest: RawGuest) -> Iterable[bytes]:
    for number in range(2000):
        part = IP(src=at.GUEST, dst=at.WEB, id=number, flags="MF", proto=17) / Raw(bytes(16))
        yield bytes(guest.frame(part))


@pytest.mark.parametrize(
    ("settings", "frames", "limit", "lost"),
    [
        ({}, _fragments, "fragments", ("limit_fragments", "rx")),
        (
            {},
            lambda _: [floods.segment(_GATEWAY, port, 53) for port in range(1, 500)],
            "dns",
            ("limit_dns", "rx"),
        ),
        (
            _RATE,
            lambda _: [
                floods.datagram(IPv4Address(f"93.184.{n >> 8}.{n & 255}").packed, 5000, 7)
                for n in range(1, 500)
            ],
            "new_flows",
            ("limit_new_flows", "rx"),
        ),
        (
            {"AERO_L2_MAX_NEW_FLOWS_PER_SECOND": "200"},
            lambda _: [floods.segment(_WEB, port, 7) for port in range(1, 2000)],
            "server",
            ("limit_server", "rx"),
        ),
        (_BYTES, _pings, "pings", ("limit_pings", "tx")),
        (
            {**_BYTES, "AERO_L2_MAX_UDP_FLOWS_PER_TUNNEL": "0"},
            lambda _: [floods.datagram(_WEB, 5000, at.ECHO_PORT, bytes(1000))] * 1000,
            "bytes",
            ("limit_bytes", "rx"),
        ),
        (
            _NAMES,
            lambda _: [floods.segment(IPv4Address("8.8.8.8").packed, port, 53) for port in range(1, 500)],
            "redirected_dns",
            None,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_limit_counts_the_same_as_refused_and_as_lost(
    world: World,
    proxy_as: RunAs,
    settings: dict[str, str],
    frames: Frames,
    limit: str,
    lost: tuple[str, str] | None,
) -> None:
    limited = f'aero_l2_packets_limited_total{{limit="{limit}"}}'
    with run_proxy(world, proxy_as, settings) as proxy:
        async with raw_guest(proxy) as guest:
            await until(lambda: proxy.metric('aero_l2_setup_seconds_count{step="nat_ready"}') == 1, "the NAT")
            counting, sent = Counting(proxy), 0
            for frame in frames(guest):
                await guest.tunnel.send(frame)
                sent += 1
            await guest.tunnel.ping(b"all taken", timeout_s=60)
            await until(lambda: counting.moved().get(limited, 0) > 0, "some are refused", SOON_S)
        await until(lambda: proxy.metric("l2_sessions_active") == 0, "it has ended")
        proxy.wait_settled()
        moved = counting.moved()
        assert 0 < moved[limited] < (2 * sent if limit == "bytes" else sent)
        if lost is not None:
            ways = ("rx", "tx") if limit == "bytes" else (lost[1],)
            names = [f'aero_l2_frames_dropped_total{{cause="{lost[0]}",direction="{way}"}}' for way in ways]
            assert sum(moved.get(name, 0) for name in names) == moved[limited]
        drops = [by for name, by in moved.items() if name.startswith("aero_l2_frames_dropped_total")]
        assert sum(drops) == moved.get("l2_frames_dropped_total", 0)


async def test_what_a_client_does_not_take_is_lost_in_the_queue_to_it(world: World, proxy_as: RunAs) -> None:
    lost = 'aero_l2_frames_dropped_total{cause="queue",direction="tx"}'
    stall = {"AERO_L2_SEND_STALL_TIMEOUT_MS": "2000", "AERO_L2_MAX_UDP_FLOWS_PER_TUNNEL": "0"}
    with run_proxy(world, proxy_as, stall) as proxy:
        counting = Counting(proxy)
        async with raw_guest(proxy) as guest:
            await guest.echo(b"the NAT is up")
            frame = bytes(guest.frame(IP(src=at.GUEST, dst=at.GATEWAY) / ICMP(id=9) / Raw(bytes(1400))))
            transport = guest.tunnel._socket.transport
            transport.pause_reading()
            while guest.tunnel.is_open and not counting.moved().get(lost):
                for _ in range(500):
                    await guest.tunnel.send(frame)
            transport.resume_reading()
        proxy.wait_settled()
        moved = counting.moved()
        assert moved[lost] == moved["l2_frames_dropped_total"] > 0
