"""Causes, results and reasons that take more than an ordinary guest to come about, each counted exactly."""

import asyncio
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from scapy.layers.dns import DNS
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Raw
from support import addresses as at
from support.counting import Counting
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import RawGuest, raw_guest
from support.stage import copy_program
from support.tunnel import RefusedError, Tunnel
from support.wait import until
from support.world import World
from websockets.typing import Subprotocol

pytestmark = pytest.mark.slow

TCP_SERVER, LATER_PORT = 80, 5599
DROPPED = "l2_frames_dropped_total"


def lost(direction: str, cause: str) -> str:
    return f'aero_l2_frames_dropped_total{{cause="{cause}",direction="{direction}"}}'


def answers(rcode: str) -> str:
    return f'aero_l2_dns_answers_total{{rcode="{rcode}"}}'


def failed(cause: str) -> str:
    return f'aero_l2_dns_upstream_failures_total{{cause="{cause}"}}'


def cached(result: str) -> str:
    return f'aero_l2_dns_cache_lookups_total{{result="{result}"}}'


def request(kind: str, result: str) -> str:
    return f'aero_l2_netd_requests_total{{kind="{kind}",result="{result}"}}'


def ended(reason: str) -> str:
    return f'aero_l2_sessions_closed_total{{reason="{reason}"}}'


def shed(reason: str) -> str:
    return f'aero_l2_upgrades_shed_total{{reason="{reason}"}}'


def from_guest(to: str) -> IP:
    return IP(src=at.GUEST, dst=to)


async def test_frames_that_are_too_long_for_the_client(world: World, proxy_as: RunAs) -> None:
    """The host's answer to a refused packet quotes it, with 28 bytes more (RFC 792)."""
    with run_proxy(world, proxy_as, {"AERO_L2_MAX_FRAME_PAYLOAD": "300"}) as proxy:
        async with raw_guest(proxy) as guest:
            await guest.echo(b"the NAT is up")
            counting = Counting(proxy)
            for size in (10, 200, 240, 250):  # 42 are headers
                refused = from_guest(at.PRIVATE_SITE) / UDP(sport=1000, dport=81) / Raw(b"x" * size)
                await guest.send(refused)
            await counting.exactly(
                {
                    lost("tx", "too_long"): 2,
                    DROPPED: 2,
                    'aero_l2_policy_denied_total{reason="special"}': 4,
                    "l2_policy_denied_total": 4,
                }
            )


async def test_frames_beyond_the_rate_are_those_that_are_not_answered(world: World, proxy_as: RunAs) -> None:
    """Pings of the gateway, so many at once that hardly any passes."""
    settings = {"AERO_L2_MAX_PACKETS_PER_SECOND": "1", "AERO_L2_MAX_PACKETS_PER_SECOND_BURST": "50"}
    with run_proxy(world, proxy_as, settings) as proxy:
        async with raw_guest(proxy) as guest:
            assert await guest.ping(at.GATEWAY)  # which knows the guest by ARP then
            await until(lambda: proxy.metric('aero_l2_setup_seconds_count{step="nat_ready"}') == 1, "NAT")
            counting = Counting(proxy)
            for number in range(200):
                await guest.send(from_guest(at.GATEWAY) / ICMP(id=9, seq=number))
            await guest.tunnel.ping(b"all taken")
            dropped = counting.moved()[lost("rx", "rate")]
            answered = 200 - int(dropped)
            assert 0 < answered < 100
            for _ in range(answered):
                assert ICMP in await guest.expect(lambda packet: packet if ICMP in packet else None)
            await counting.exactly({lost("rx", "rate"): dropped, DROPPED: dropped})


class Resumable(Tunnel):
    """A tunnel that is kept for its client."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(proxy.world.host, proxy.port)
        self._offered = [*(self._offered or []), Subprotocol("aero-l2-resume")]

    def _sort(self, kind: int, payload: bytes) -> None:
        if kind not in (0x10, 0x11):
            super()._sort(kind, payload)


@contextmanager
def far_end(world: World) -> Iterator[socket.socket]:
    """A UDP socket on the internet that the test answers from when it likes."""
    with world.internet.open_socket(kind=socket.SOCK_DGRAM) as sock:
        sock.bind((at.WEB, LATER_PORT))
        sock.settimeout(30)
        yield sock


async def test_frames_for_a_client_that_is_away(world: World, proxy_as: RunAs) -> None:
    with run_proxy(world, proxy_as, {"AERO_L2_RESUME_SECONDS": "600"}) as proxy, far_end(world) as far:
        async with Resumable(proxy) as tunnel:
            guest = RawGuest(tunnel)
            await guest.echo(b"the NAT is up")
            await guest.send(from_guest(at.WEB) / UDP(sport=5000, dport=LATER_PORT) / b"answer me later")
            _, back = await asyncio.to_thread(far.recvfrom, 100)
            tunnel.abort()
            await until(lambda: proxy.metric("aero_l2_sessions_kept") == 1, "it is kept", 30)
            counting = Counting(proxy)
            for _ in range(5):
                far.sendto(b"later", back)
            await counting.exactly({lost("tx", "away"): 5, DROPPED: 5})


async def test_packets_that_do_not_fit_before_a_nat_process_that_is_held_up(own_proxy: Proxy) -> None:
    """What gets to the far end once it goes on is what was not lost."""
    with far_end(own_proxy.world) as far:
        async with raw_guest(own_proxy) as guest:
            await guest.echo(b"the NAT is up")
            counting, (nat,) = Counting(own_proxy), own_proxy.with_role("nat")
            os.kill(nat, signal.SIGSTOP)
            try:
                for number in range(150):
                    packet = from_guest(at.WEB) / UDP(sport=5000, dport=LATER_PORT) / Raw(b"%d" % number)
                    await guest.send(packet)
                await guest.tunnel.ping(b"all taken")
            finally:
                os.kill(nat, signal.SIGCONT)
            await until(lambda: counting.moved().get(lost("rx", "queue")), "what was lost is counted", 30)
            gone = counting.moved()[lost("rx", "queue")]
            assert 0 < gone < 150
            for _ in range(150 - int(gone)):
                await asyncio.to_thread(far.recv, 100)
            await counting.exactly({lost("rx", "queue"): gone, DROPPED: gone})


async def test_packets_that_connection_tracking_finds_invalid(own_proxy: Proxy) -> None:
    async with raw_guest(own_proxy) as guest:
        await guest.echo(b"the NAT is up")
        counting = Counting(own_proxy)
        for port in range(30000, 30004):
            await guest.send(from_guest(at.WEB) / TCP(sport=port, dport=TCP_SERVER, flags="SF"))
        await counting.exactly({'aero_l2_packets_ignored_total{reason="invalid"}': 4})


def _header(number: int, flags: int, *counts: int) -> bytes:
    return struct.pack("!6H", number, flags, *counts)


async def test_dns_answers_of_every_kind(own_proxy: Proxy) -> None:
    async with raw_guest(own_proxy) as guest:
        counting = Counting(own_proxy, "aero_l2_setup_")
        torn = DNS(await guest.udp(at.GATEWAY, 53, _header(1, 0x100, 1, 0, 0, 0) + b"\x09torn"))
        assert torn.rcode == 1
        for number in (2, 3):
            assert DNS(await guest.udp(at.GATEWAY, 53, _header(number, 2 << 11, 0, 0, 0, 0))).rcode == 4
        for _ in range(3):
            assert (await guest.resolve("web.example.test", "AXFR")).rcode == 5
        assert (await guest.resolve("odd.example.test")).rcode == 6
        assert (await guest.resolve("torn.example.test")).rcode == 2
        await counting.exactly(
            {
                "l2_dns_queries_total": 8,
                "l2_dns_fail_total": 8,
                answers("formerr"): 1,
                answers("notimp"): 2,
                answers("refused"): 3,
                answers("other"): 1,
                answers("servfail"): 1,
                failed("malformed"): 1,
                cached("miss"): 2,
                "aero_l2_dns_upstream_seconds_count": 1,
            }
        )


async def test_dns_questions_that_nobody_is_asked(world: World, proxy_as: RunAs) -> None:
    settings = {"AERO_L2_STACK_MAX_PENDING_DNS": "1"}
    known = world.resolv_conf.read_text()
    with run_proxy(world, proxy_as, settings) as proxy:
        async with raw_guest(proxy) as guest:
            counting = Counting(proxy, "aero_l2_setup_")
            waiting = from_guest(at.GATEWAY) / UDP(sport=6001, dport=53)
            await guest.send(waiting / Raw(_header(1, 0x100, 1, 0, 0, 0) + _SILENT))
            await until(lambda: proxy.metric("aero_l2_dns_pending") == 1, "it waits")
            for number in range(3):
                assert (await guest.resolve(f"n{number}.example.test")).rcode == 2
            await counting.exactly(
                {
                    "l2_dns_queries_total": 4,
                    "l2_dns_fail_total": 4,
                    answers("servfail"): 4,
                    failed("too_many"): 3,
                    failed("timeout"): 1,
                    cached("miss"): 1,
                }
            )
    try:
        world.resolv_conf.write_text("# none\n")
        with run_proxy(world, proxy_as, ready=False) as proxy:
            await _none_known(proxy)
    finally:
        world.resolv_conf.write_text(known)


_SILENT = b"\x06silent\x07example\x04test\0\0\1\0\1"


async def _none_known(proxy: Proxy) -> None:
    await until(lambda: proxy.get("/readyz")[0] == 200, "tunnels can be made", 60)
    async with raw_guest(proxy) as guest:
        counting = Counting(proxy, "aero_l2_setup_")
        for _ in range(2):
            assert (await guest.resolve("web.example.test")).rcode == 2
        await counting.exactly(
            {
                "l2_dns_queries_total": 2,
                "l2_dns_fail_total": 2,
                answers("servfail"): 2,
                failed("no_server"): 2,
                cached("miss"): 2,
            }
        )


async def _refused(proxy: Proxy) -> None:
    with pytest.raises(RefusedError, match=r"^503"):
        async with proxy.tunnel():
            pass


def _broken(programs: Path) -> Callable[[], None]:
    """An nft that fails; returns what mends it."""
    (programs / "nft").unlink()
    (programs / "nft").write_text("#!/bin/sh\necho out of order >&2; exit 3\n")
    (programs / "nft").chmod(0o755)

    def mend() -> None:
        (programs / "nft").unlink()
        copy_program("nft", programs)

    return mend


async def test_set_ups_that_fail_by_what_became_of_them(world: World, proxy_as: RunAs) -> None:
    """The proxy's own trials fail beside them; tests/unit/test_netns_account.py counts without any."""
    with run_proxy(world, proxy_as) as proxy:
        counting, mend = Counting(proxy, "aero_l2_setup_"), _broken(proxy.programs)
        for _ in range(2):
            await _refused(proxy)
        mend()
        await counting.exactly({shed("failed"): 2})
        assert counting.moved()[request("create", "refused")] >= 2
        await until(lambda: proxy.get("/readyz")[0] == 200, "tunnels can be made", 60)
        counting, netd = Counting(proxy, "aero_l2_setup_"), proxy.one("netd")
        os.kill(netd, signal.SIGSTOP)
        leaving = [asyncio.ensure_future(_refused(proxy)) for _ in range(3)]
        await until(lambda: proxy.metric("aero_l2_setups_active") == 3, "they are at it", 30)
        for one in leaving:
            one.cancel()
        await asyncio.wait(leaving)
        await counting.exactly({request("create", "cancelled"): 3})
        staying = [asyncio.ensure_future(_refused(proxy)) for _ in range(2)]
        await until(lambda: proxy.metric("aero_l2_setups_active") == 2, "they wait", 30)
        proxy.kill(netd)
        await asyncio.gather(*staying)
        await counting.exactly({request("create", "cancelled"): 3, shed("failed"): 2})
        assert counting.moved()[request("create", "lost")] >= 2


async def test_ends_of_tunnels_that_clients_and_their_nat_bring_about(own_proxy: Proxy) -> None:
    """The others are in tests/unit/test_session_closing.py, all of them over real sockets."""
    counting = Counting(own_proxy, "aero_l2_setup_", "l2_sessions_total")
    async with own_proxy.tunnel() as tunnel:
        await tunnel.send_message(b"\0\3\0\0")
        assert (await tunnel.closed())[0] == 1008
    for _ in range(2):
        async with own_proxy.tunnel() as tunnel:
            tunnel.abort()
    for _ in range(3):
        async with own_proxy.tunnel() as tunnel:
            tunnel.write(b"\x82\x01x")  # without a mask
            assert (await tunnel.closed())[0] == 1002
    async with raw_guest(own_proxy) as guest:
        await guest.echo(b"the NAT is up")
        own_proxy.kill(own_proxy.with_role("nat")[-1])
        assert (await guest.tunnel.closed())[0] == 1011
    await counting.exactly(
        {
            ended("malformed_message"): 1,
            ended("peer_gone"): 2,
            ended("websocket_failed"): 3,
            ended("tunnel_failed"): 1,
        }
    )
