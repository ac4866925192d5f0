"""Each metric against what a scripted guest did, on the real proxy: exactly so much, and no other moves."""

import asyncio
import os
import signal
import struct
import time
from collections.abc import AsyncIterator

import pytest
from scapy.layers.dns import DNS
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from support import addresses as at
from support.counting import Counting
from support.cut import cut
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import RawGuest, raw_guest
from support.stage import delay_nat
from support.tunnel import Tunnel
from support.wait import until
from support.world import World
from websockets.typing import Subprotocol

pytestmark = pytest.mark.slow

STEPS = (
    *("turn", "lookup", "netd", "queue", "namespace", "taps", "rules", "sockets", "nat_start"),
    *("services", "total", "nat_ready"),
)
DENIED = "100.99.0.1"
DOMAINS = {"AERO_L2_ALLOWED_DOMAINS": "allowed.test,example.test"}


class Resuming(Tunnel):
    """A tunnel whose client can come back, with a secret that it was given before."""

    def __init__(self, proxy: Proxy, secret: bytes = b"") -> None:
        super().__init__(proxy.world.host, proxy.port)
        more = ["aero-l2-resume", *([f"aero-l2-resume.{secret.decode()}"] if secret else [])]
        self._offered = [*(self._offered or []), *map(Subprotocol, more)]
        self._secrets: asyncio.Queue[bytes] = asyncio.Queue()

    def _sort(self, kind: int, payload: bytes) -> None:
        if kind == 0x10:
            self._secrets.put_nowait(payload)
        elif kind != 0x11:
            super()._sort(kind, payload)

    async def secret(self) -> bytes:
        """What to come back with."""
        return await asyncio.wait_for(self._secrets.get(), 30)


def denied(reason: str) -> str:
    return f'aero_l2_policy_denied_total{{reason="{reason}"}}'


def lost(direction: str, cause: str) -> str:
    return f'aero_l2_frames_dropped_total{{cause="{cause}",direction="{direction}"}}'


def limited(limit: str) -> str:
    return f'aero_l2_packets_limited_total{{limit="{limit}"}}'


def answers(rcode: str) -> str:
    return f'aero_l2_dns_answers_total{{rcode="{rcode}"}}'


def from_guest(to: str) -> IP:
    return IP(src=at.GUEST, dst=to)


@pytest.fixture
async def guest(own_proxy: Proxy) -> AsyncIterator[RawGuest]:
    """A guest whose NAT is up."""
    async with raw_guest(own_proxy) as one:
        await one.echo(b"the NAT is up")
        yield one


async def test_tunnel_is_counted_with_each_step_of_its_making(own_proxy: Proxy) -> None:
    counting = Counting(own_proxy)
    async with raw_guest(own_proxy) as guest:
        await guest.echo(b"the NAT is up")
        made: dict[str, float] = {f'aero_l2_setup_seconds_count{{step="{step}"}}': 1 for step in STEPS}
        await counting.exactly({"l2_sessions_total": 1, **made})
        now = own_proxy.metrics()
        assert now["l2_sessions_active"] == 1
        seconds = {step: now[f'aero_l2_setup_seconds_sum{{step="{step}"}}'] for step in STEPS}
        parts = sum(seconds[step] for step in STEPS[3:9])
        assert 0 < parts <= seconds["netd"] <= seconds["total"] < 30
    closed = 'aero_l2_sessions_closed_total{reason="peer_closed"}'
    await counting.exactly({"l2_sessions_total": 1, closed: 1, **made})
    assert own_proxy.metric("l2_sessions_active") == 0


async def test_frames_and_bytes_both_ways(own_proxy: Proxy, guest: RawGuest) -> None:
    guest.drain()
    counting = Counting(own_proxy)
    sent = [
        guest.frame(from_guest(at.WEB) / UDP(sport=5000, dport=at.ECHO_PORT) / Raw(b"x" * n))
        for n in range(40, 60)
    ]
    for frame in sent:
        await guest.tunnel.send(bytes(frame))
    got = [await guest.tunnel.receive() for _ in sent]
    assert all(UDP in Ether(frame) for frame in got)
    await counting.exactly(
        {
            "l2_frames_rx_total": len(sent),
            "l2_bytes_rx_total": sum(map(len, sent)),
            "l2_frames_tx_total": len(got),
            "l2_bytes_tx_total": sum(map(len, got)),
        }
    )


async def test_each_rule_of_the_policy_counts_its_own_packets(world: World, proxy_as: RunAs) -> None:
    """The number of packets tells the rules apart: one more for each."""
    packets = {
        "spoofed": IP(src="10.0.2.77", dst=at.WEB) / UDP(sport=1000, dport=7),
        "martian": from_guest("224.0.0.251") / UDP(sport=1000, dport=5353),
        "gateway": from_guest(at.GATEWAY) / UDP(sport=1000, dport=81),
        "lan": from_guest("10.0.2.77") / UDP(sport=1000, dport=81),
        "nat": from_guest(at.NAT) / UDP(sport=1000, dport=81),
        "host": from_guest(at.HOST_PUBLIC) / UDP(sport=1000, dport=81),
        "prefix": from_guest(DENIED) / UDP(sport=1000, dport=81),
        "special": from_guest(at.PRIVATE_SITE) / UDP(sport=1000, dport=81),
        "port": from_guest(at.WEB) / TCP(sport=1000, dport=25, flags="S"),
        "protocol": IP(src=at.GUEST, dst=at.WEB, proto=47) / Raw(b"GRE"),
        "stray": from_guest(at.WEB) / TCP(sport=1000, dport=80, flags="A"),
    }
    with run_proxy(world, proxy_as, {"AERO_L2_DENIED_CIDRS": "100.99.0.0/16"}) as proxy:
        async with raw_guest(proxy) as guest:
            await guest.echo(b"the NAT is up")
            counting = Counting(proxy)
            wanted: dict[str, float] = {}
            for number, (reason, packet) in enumerate(packets.items(), 1):
                for _ in range(number):
                    await guest.send(packet)
                wanted[denied(reason)] = number
            wanted["l2_policy_denied_total"] = sum(wanted.values())
            await counting.exactly(wanted)


async def test_names_that_policy_denies(world: World, proxy_as: RunAs) -> None:
    with run_proxy(world, proxy_as, DOMAINS) as proxy:
        async with raw_guest(proxy) as guest:
            assert (await guest.resolve("web.allowed.test")).rcode == 0
            await guest.echo(b"the NAT is up")
            counting = Counting(proxy)
            for number in range(3):
                assert (await guest.resolve(f"n{number}.elsewhere.test")).rcode == 3
            for _ in range(2):
                await guest.send(from_guest("8.8.4.4") / UDP(sport=1000, dport=99))
            for _ in range(4):
                await guest.send(from_guest(at.WEB) / TCP(sport=1000, dport=853, flags="S"))
            await counting.exactly(
                {
                    "l2_policy_denied_total": 9,
                    denied("query"): 3,
                    denied("name"): 2,
                    denied("encrypted_dns"): 4,
                    "l2_dns_queries_total": 3,
                    answers("nxdomain"): 3,
                }
            )


async def test_packets_that_are_neither_refused_nor_lost(own_proxy: Proxy, guest: RawGuest) -> None:
    counting = Counting(own_proxy)
    solicitation = Ether(src=guest.mac, dst=at.GATEWAY_MAC, type=0x86DD) / Raw(b"\x60" + bytes(60))
    for _ in range(2):
        await guest.tunnel.send(bytes(solicitation))
    quoted = bytes(IP(src=at.WEB, dst=at.GUEST) / UDP(sport=7, dport=4999))
    for _ in range(3):
        await guest.send(from_guest(at.WEB) / ICMP(type=3, code=3) / Raw(quoted))
    await counting.exactly(
        {
            'aero_l2_packets_ignored_total{reason="ipv6"}': 2,
            'aero_l2_packets_ignored_total{reason="icmp_errors"}': 3,
        }
    )


async def test_dns_by_outcome(own_proxy: Proxy, guest: RawGuest) -> None:
    counting = Counting(own_proxy)
    cache = 'aero_l2_dns_cache_lookups_total{{result="{}"}}'.format
    for name, rcode in (("web.example.test", 0), ("web.example.test", 0), ("none.example.test", 3)):
        assert (await guest.resolve(name)).rcode == rcode
    assert (await guest.resolve("web.example.test", "AAAA")).rcode == 0  # answered by us
    assert (await guest.resolve("broken.example.test")).rcode == 2
    status = DNS(
        await guest.udp(at.GATEWAY, 53, struct.pack("!HHHHHH", 77, 2 << 11, 1, 0, 0, 0) + b"\0\0\1\0\1")
    )
    assert status.rcode == 4
    await counting.exactly(
        {
            "l2_dns_queries_total": 6,
            "l2_dns_fail_total": 3,
            answers("noerror"): 3,
            answers("nxdomain"): 1,
            answers("servfail"): 1,
            answers("notimp"): 1,
            cache("miss"): 3,
            cache("hit"): 1,
            "aero_l2_dns_upstream_seconds_count": 3,
            'aero_l2_dns_upstream_failures_total{cause="rcode"}': 1,
        }
    )
    assert own_proxy.metric("aero_l2_dns_pending") == 0


async def test_question_that_is_under_way_is_shared_and_its_time_out_counts_once(
    own_proxy: Proxy, guest: RawGuest
) -> None:
    counting = Counting(own_proxy)
    first = asyncio.ensure_future(
        guest.udp(at.GATEWAY, 53, _query(1, "silent.example.test"), 6001, again_s=60)
    )
    await until(lambda: own_proxy.metric("aero_l2_dns_pending") == 1, "it waits")
    second = asyncio.ensure_future(
        guest.udp(at.GATEWAY, 53, _query(2, "silent.example.test"), 6002, again_s=60)
    )
    del second
    await first
    await counting.exactly(
        {
            "l2_dns_queries_total": 2,
            "l2_dns_fail_total": 2,
            answers("servfail"): 2,
            'aero_l2_dns_cache_lookups_total{result="miss"}': 1,
            'aero_l2_dns_cache_lookups_total{result="shared"}': 1,
            'aero_l2_dns_upstream_failures_total{cause="timeout"}': 1,
        }
    )


async def test_resolver_that_is_not_there_is_unreachable(own_proxy: Proxy, guest: RawGuest) -> None:
    counting = Counting(own_proxy)
    with cut(own_proxy.world.host) as dropped:
        dropped.refuse("udp dport 53", "tcp dport 53")
        assert (await guest.resolve("web.example.test")).rcode == 2
    await counting.exactly(
        {
            "l2_dns_queries_total": 1,
            "l2_dns_fail_total": 1,
            answers("servfail"): 1,
            'aero_l2_dns_cache_lookups_total{result="miss"}': 1,
            'aero_l2_dns_upstream_failures_total{cause="unreachable"}': 1,
        }
    )


def _query(number: int, name: str) -> bytes:
    from scapy.layers.dns import DNSQR

    return bytes(DNS(id=number, rd=1, qd=DNSQR(qname=name)))


async def test_flows_and_limits_of_them(world: World, proxy_as: RunAs) -> None:
    settings = {"AERO_L2_MAX_UDP_FLOWS_PER_TUNNEL": "2", "AERO_L2_STACK_MAX_TCP_CONNECTIONS": "1"}
    with run_proxy(world, proxy_as, settings) as proxy:
        async with raw_guest(proxy) as guest:
            await guest.echo(b"the first UDP flow")
            assert await guest.try_tcp(at.WEB, at.ECHO_PORT) == "answered"
            await until(lambda: proxy.metric("l2_tcp_conns_active") == 1, "the connection", 30)
            assert proxy.metric("l2_udp_flows_active") == 1
            counting = Counting(proxy)
            for port in range(31000, 31004):
                await guest.send(from_guest(at.WEB) / UDP(sport=port, dport=at.ECHO_PORT) / b"x")
            for port in range(31000, 31005):
                await guest.send(from_guest(at.CDN) / TCP(sport=port, dport=at.ECHO_PORT, flags="S"))
            await counting.exactly(
                {limited("udp"): 3, "l2_udp_flow_limit_exceeded_total": 3, limited("tcp"): 5}
            )


async def test_connects_and_datagrams_that_fail(own_proxy: Proxy, guest: RawGuest) -> None:
    nowhere = "100.1.2.3"
    own_proxy.world.host.run("ip", "route", "add", "unreachable", nowhere)
    try:
        counting = Counting(own_proxy)
        for port in range(4711, 4714):
            await guest.send(from_guest(at.WEB) / TCP(sport=30000, dport=port, flags="S"))
        for _ in range(2):
            await guest.send(from_guest(nowhere) / UDP(sport=30000, dport=7) / b"x")
        await counting.exactly({"l2_tcp_connect_fail_total": 3, "l2_udp_send_fail_total": 2})
    finally:
        own_proxy.world.host.run("ip", "route", "del", "unreachable", nowhere)


async def test_frames_that_are_too_short_and_too_fast(world: World, proxy_as: RunAs) -> None:
    settings = {"AERO_L2_MAX_PACKETS_PER_SECOND": "1", "AERO_L2_MAX_PACKETS_PER_SECOND_BURST": "20"}
    with run_proxy(world, proxy_as, settings) as proxy:
        async with raw_guest(proxy) as guest:
            await until(lambda: proxy.metric('aero_l2_setup_seconds_count{step="nat_ready"}') == 1, "NAT")
            counting = Counting(proxy)
            for _ in range(3):
                await guest.tunnel.send(b"short")
            await counting.exactly({lost("rx", "too_short"): 3, "l2_frames_dropped_total": 3})
            for _ in range(400):
                await guest.tunnel.send(bytes(guest.frame(from_guest(at.GATEWAY) / UDP(dport=53))))
            await guest.tunnel.ping(b"all taken")
            dropped = counting.moved()[lost("rx", "rate")]
            assert 350 < dropped < 400
            assert counting.moved()["l2_frames_dropped_total"] == 3 + dropped


async def test_frames_before_the_nat_process_is_there(world: World, proxy_as: RunAs) -> None:
    """96 are kept, which a closed TAP loses when the tunnel ends first; the others are lost at once."""
    with run_proxy(world, proxy_as) as proxy:
        go = delay_nat(proxy.programs)
        async with raw_guest(proxy) as guest:
            frame = bytes(guest.frame(from_guest(at.WEB) / UDP(sport=5000, dport=at.DISCARD_PORT) / b"x"))
            counting = Counting(proxy, "aero_l2_setup_", "aero_l2_sessions_closed")
            for _ in range(100):
                await guest.tunnel.send(frame)
            await guest.tunnel.ping(b"all taken")
            await counting.exactly({lost("rx", "early_queue"): 4, "l2_frames_dropped_total": 4})
            assert proxy.metric('aero_l2_setup_seconds_count{step="nat_ready"}') == 0
            guest.tunnel.abort()
            await counting.exactly(
                {lost("rx", "early_queue"): 4, lost("rx", "tap"): 96, "l2_frames_dropped_total": 100}
            )
        go.touch()


async def test_byte_quota_ends_a_tunnel_and_loses_what_is_beyond_it(world: World, proxy_as: RunAs) -> None:
    with run_proxy(world, proxy_as, {"AERO_L2_MAX_BYTES_PER_CONNECTION": "2000"}) as proxy:
        counting = Counting(proxy, "aero_l2_setup_", "l2_sessions_total")
        async with raw_guest(proxy) as guest:
            await guest.echo(b"x")
            await guest.send(from_guest(at.WEB) / UDP(sport=5000, dport=at.ECHO_PORT) / Raw(b"x" * 1400))
            assert (await guest.tunnel.closed())[0] == 1008
        await counting.exactly(
            {
                "l2_sessions_closed_quota_bytes_total": 1,
                'aero_l2_sessions_closed_total{reason="byte_quota"}': 1,
                lost("tx", "quota"): 1,
                "l2_frames_dropped_total": 1,
            }
        )


async def test_frame_rate_and_idle_ends(world: World, proxy_as: RunAs) -> None:
    settings = {"AERO_L2_MAX_FRAMES_PER_SECOND": "20", "AERO_L2_IDLE_TIMEOUT_MS": "1500"}
    with run_proxy(world, proxy_as, settings) as proxy:
        counting = Counting(proxy, "aero_l2_setup_", "l2_sessions_total")
        async with raw_guest(proxy) as idle:
            assert await idle.tunnel.closed() == (1008, "idle timeout")
        async with raw_guest(proxy) as fast:
            for _ in range(21):
                await fast.tunnel.send_message("text counts too")
            assert (await fast.tunnel.closed())[0] == 1008
        await counting.exactly(
            {
                "aero_l2_idle_timeouts_total": 1,
                'aero_l2_sessions_closed_total{reason="idle_timeout"}': 1,
                "l2_sessions_closed_quota_fps_total": 1,
                'aero_l2_sessions_closed_total{reason="frame_rate_quota"}': 1,
            }
        )


async def test_requests_to_netd_by_kind_and_what_processes_use(own_proxy: Proxy, guest: RawGuest) -> None:
    request = 'aero_l2_netd_requests_total{{kind="{}",result="{}"}}'.format
    before = own_proxy.metrics()
    async with raw_guest(own_proxy):
        now = own_proxy.metrics()
        assert now[request("create", "ok")] - before[request("create", "ok")] == 1
        assert now['aero_l2_processes{process="nat"}'] == 2
    await until(lambda: own_proxy.metric(request("release", "sent")) >= 2, "what is over was released", 30)
    own_proxy.kill(own_proxy.one("netd"))
    await until(lambda: own_proxy.metric(request("adopt", "sent")) == 1, "the other tunnel is adopted", 30)
    assert (
        own_proxy.metric('aero_l2_netd_request_seconds_count{kind="create"}') == now[request("create", "ok")]
    )
    await until(lambda: own_proxy.metric('aero_l2_processes{process="netd"}') == 1, "netd is back", 30)
    for process in ("launch", "netd", "server", "nat"):
        assert own_proxy.metric(f'aero_l2_process_threads{{process="{process}"}}') >= 1
        assert own_proxy.metric(f'aero_l2_process_max_fds{{process="{process}"}}') > 1000
        started = own_proxy.metric(f'aero_l2_process_start_time_seconds{{process="{process}"}}')
        assert time.time() - 3600 < started < time.time() + 5
    for process in ("launch", "netd", "server"):
        assert own_proxy.metric(f'aero_l2_processes{{process="{process}"}}') == 1
        assert 1e6 < own_proxy.metric(f'aero_l2_process_resident_memory_bytes{{process="{process}"}}') < 1e9
        assert own_proxy.metric(f'aero_l2_process_open_fds{{process="{process}"}}') > 2
    assert own_proxy.metric('aero_l2_process_cpu_seconds_total{process="server"}') > 0


async def test_pings_that_are_answered_are_timed(world: World, proxy_as: RunAs) -> None:
    with run_proxy(world, proxy_as, {"AERO_L2_PING_INTERVAL_MS": "200"}) as proxy:
        counting = Counting(proxy, "aero_l2_setup_", "l2_sessions_total")
        async with proxy.tunnel() as tunnel:
            for answered in range(3):
                await until(lambda answered=answered: len(tunnel.pings) == answered + 1, "the next PING", 30)
                await tunnel.send_message(b"\xa2\x03\x02\x00" + tunnel.pings[-1])
            await counting.exactly({"l2_ping_rtt_ms_count": 3})
            assert 0 < proxy.metric("l2_ping_rtt_ms_sum") < 30_000


async def test_client_that_takes_nothing_is_closed_for_backpressure(world: World, proxy_as: RunAs) -> None:
    settings = {"AERO_L2_SEND_STALL_TIMEOUT_MS": "1000"}
    with run_proxy(world, proxy_as, settings) as proxy:
        counting = Counting(proxy, "aero_l2_setup_", "l2_sessions_total", "aero_l2_frames_", "l2_frames_")
        async with raw_guest(proxy) as guest:
            await guest.echo(b"the NAT is up")
            frame = bytes(guest.frame(from_guest(at.GATEWAY) / ICMP(id=9) / Raw(bytes(1400))))
            guest.tunnel._socket.transport.pause_reading()
            counted = "l2_sessions_closed_backpressure_total"
            for _ in range(20_000):
                await guest.tunnel.send(frame)
                if not guest.tunnel.is_open:
                    break
            await until(lambda: counting.moved().get(counted) == 1, "it is closed", 60)
            guest.tunnel._socket.transport.resume_reading()
        reason = 'aero_l2_sessions_closed_total{reason="backpressure"}'
        await counting.exactly({counted: 1, reason: 1})


async def test_kept_tunnels_and_clients_that_come_back(world: World, proxy_as: RunAs) -> None:
    result = 'aero_l2_resumes_total{{result="{}"}}'.format
    with run_proxy(world, proxy_as, {"AERO_L2_RESUME_SECONDS": "600"}) as proxy:
        counting = Counting(proxy, "aero_l2_setup_")
        secrets: list[bytes] = []
        async with Resuming(proxy) as lost_one:
            secrets.append(await lost_one.secret())
            lost_one.abort()
            await until(lambda: proxy.metric("aero_l2_sessions_kept") == 1, "it is kept", 30)
        async with Resuming(proxy, secrets[-1]) as back:
            secrets.append(await back.secret())
            assert proxy.metric("aero_l2_sessions_kept") == 0
            async with Resuming(proxy, secrets[-1]) as other:
                secrets.append(await other.secret())
                async with Resuming(proxy, secrets[0]) as late:
                    await late.secret()
                    moved = {result(name): 1 for name in ("resumed", "taken_over", "unknown")}
                    await counting.exactly({"l2_sessions_total": 2, **moved})


async def test_setups_that_wait_and_netd_that_is_silent(world: World, proxy_as: RunAs) -> None:
    with run_proxy(world, proxy_as, {"AERO_L2_MAX_SETUPS": "1"}) as proxy:
        netd = proxy.one("netd")
        os.kill(netd, signal.SIGSTOP)
        try:
            opening = [asyncio.ensure_future(_opened_and_closed(proxy)) for _ in range(3)]
            await until(
                lambda: (
                    (proxy.metric("aero_l2_setups_active"), proxy.metric("aero_l2_setups_waiting")) == (1, 2)
                ),
                "one is at it and two wait",
                30,
            )
        finally:
            os.kill(netd, signal.SIGCONT)
        await asyncio.gather(*opening)
        assert (proxy.metric("aero_l2_setups_active"), proxy.metric("aero_l2_setups_waiting")) == (0, 0)


async def _opened_and_closed(proxy: Proxy) -> None:
    async with proxy.tunnel() as tunnel:
        await tunnel.ping(b"open")


async def test_capacity_and_what_is_used_of_it(world: World, proxy_as: RunAs) -> None:
    settings = {
        "AERO_L2_MAX_CONNECTIONS": "7",
        "VERSION": "9.9",
        "GIT_SHA": "abc",
        "BUILD_TIMESTAMP": "today",
    }
    with run_proxy(world, proxy_as, settings) as proxy:
        most = 'aero_l2_capacity_max{{limit="{}"}}'.format
        used = 'aero_l2_capacity_used{{limit="{}"}}'.format
        idle = proxy.metrics()
        async with proxy.tunnel() as tunnel, proxy.tunnel() as other:
            await tunnel.ping(b"open")
            await other.ping(b"open")
            now = proxy.metrics()
        assert (idle[used("setting")], now[used("setting")], now[most("setting")]) == (0, 2, 7)
        assert now[used("files")] - idle[used("files")] >= 2 * 9
        assert now[most("files")] == now['aero_l2_process_max_fds{process="server"}'] > 1000
        for limit in ("pids", "memory", "ports", "tcp"):
            assert 0 <= now[used(limit)] < now[most(limit)]
        await until(lambda: proxy.metric("aero_l2_loop_lag_seconds_count") > 0, "the loop is measured", 30)
        build = next(name for name in now if name.startswith("aero_l2_build_info"))
        assert 'built_at="today",git_sha="abc",python="3.' in build
        assert 'version="9.9"' in build
