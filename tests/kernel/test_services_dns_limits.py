"""What a guest that asks too much gets, and what is left of its DNS server after the tunnel."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.rcode
import pytest
from kernel.test_services_dns_lab import FIRST, WEB, Lab, Upstream, framed, lab, says, take
from support.wait import retry, until

from aero_l2.services.dns import pace
from aero_l2.services.dns.resolver import ResolverSettings
from aero_l2.services.dns.server import DnsServer

SILENT = Upstream(lambda query: [])


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path) as made:
        yield made


@pytest.mark.slow
def test_queries_beyond_the_tunnels_share_are_servfail_at_once(ground: Lab) -> None:
    ground.max_pending = 4

    async def scenario(ground: Lab, server: DnsServer) -> None:
        waiting = [asyncio.ensure_future(ground.ask("x.test.")) for _ in range(4)]
        await until(lambda: server.pending == 4, "the share is used up")
        start = time.monotonic()
        assert (await ground.ask("x.test.")).rcode() == dns.rcode.SERVFAIL
        assert time.monotonic() - start < 0.5
        assert {answer.rcode() for answer in await asyncio.gather(*waiting)} == {dns.rcode.SERVFAIL}
        assert server.pending == 0

    ground.play({FIRST: SILENT}, scenario)


@pytest.mark.slow
def test_queries_beyond_the_process_limit_are_servfail_at_once(ground: Lab) -> None:
    ground.settings = ResolverSettings(max_pending=2)

    async def scenario(ground: Lab, server: DnsServer) -> None:
        waiting = [asyncio.ensure_future(ground.ask(f"{n}.test.")) for n in range(2)]
        await until(lambda: server.pending == 2, "the limit is reached")
        start = time.monotonic()
        assert (await ground.ask("x.test.")).rcode() == dns.rcode.SERVFAIL
        assert time.monotonic() - start < 0.5
        await asyncio.gather(*waiting)

    ground.play({FIRST: SILENT}, scenario)


async def rush(ground: Lab, answered: int) -> int:
    """Let the loop turn until `answered` queries were; return the most that one turn took."""
    most = before = 0
    while before < answered:
        await asyncio.sleep(0)
        most = max(most, ground.counts.queries - before)
        before = ground.counts.queries
    return most


def test_flood_over_udp_leaves_most_of_every_turn_to_others(ground: Lab) -> None:
    async def scenario(ground: Lab, server: DnsServer) -> None:
        with ground.guest.open_socket(kind=socket.SOCK_DGRAM) as sock:
            for _ in range(64):
                sock.sendto(dns.message.make_query("x.test.", "AAAA").to_wire(), ("10.0.2.2", 53))
            assert await asyncio.wait_for(rush(ground, 64), 5) <= 4

    ground.play({FIRST: SILENT}, scenario)


@pytest.mark.parametrize("asked", ["{}.test.", "x.test."])
def test_answers_that_take_long_to_read_do_not_come_all_at_once(
    ground: Lab, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty addresses cost some five milliseconds of the loop; a guest may wait for 128 answers at a time."""
    ground.settings = ResolverSettings(lookup_timeout_s=10)
    many = Upstream(says(*(f"60 A 23.0.0.{n}" for n in range(50))), delay_s=0.1)
    count, cheapest_us, rest = 10, 1500, 50
    monkeypatch.setattr(pace, "REST", rest)  # longer than the test itself holds up its loop

    async def scenario(ground: Lab, server: DnsServer) -> None:
        start = time.monotonic()
        answers = await asyncio.gather(*(ground.ask(asked.format(n)) for n in range(count)))
        assert all(len(answer.answer[0]) >= 30 for answer in answers)  # what fits into 512 bytes
        assert time.monotonic() - start > (count - 1) * cheapest_us * rest / 1e6

    ground.play({FIRST: many}, scenario)


def test_kept_answers_that_take_long_to_read_do_not_come_all_at_once(
    ground: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine addresses cost a millisecond each time they are read from the cache and written again."""
    count, rest = 10, 50
    monkeypatch.setattr(pace, "REST", rest)
    upstream = Upstream(says(*(f"60 A 23.0.0.{n}" for n in range(9))))

    async def scenario(ground: Lab, server: DnsServer) -> None:
        size = len((await ground.ask("x.test.")).to_wire())
        start = time.monotonic()
        answers = await asyncio.gather(*(ground.ask("x.test.") for _ in range(count)))
        assert {len(answer.answer[0]) for answer in answers} == {9}
        assert len(upstream.asked) == 1
        assert time.monotonic() - start > (count - 1) * size * pace.KEPT_BYTE_COST * rest / 1e6

    ground.play({FIRST: upstream}, scenario)


def test_flood_over_tcp_leaves_most_of_every_turn_to_others(ground: Lab) -> None:
    async def scenario(ground: Lab, server: DnsServer) -> None:
        with ground.guest.connect("10.0.2.2", 53) as sock:
            sock.send(framed(dns.message.make_query("x.test.", "AAAA")) * 64)
            assert await asyncio.wait_for(rush(ground, 64), 5) <= 4

    ground.play({FIRST: SILENT}, scenario)


async def attempt(ground: Lab, wire: bytes) -> bytes | None:
    try:
        return await ground.raw(wire, timeout_s=0.5)
    except TimeoutError:
        return None


def test_garbage_flood_does_not_stop_the_server(ground: Lab) -> None:
    async def scenario(ground: Lab, server: DnsServer) -> None:
        with ground.guest.open_socket(kind=socket.SOCK_DGRAM) as sock:
            for number in range(2000):
                sock.sendto(os.urandom(number % 1400), ("10.0.2.2", 53))
                await asyncio.sleep(0)
        await until(lambda: ground.counts.queries > 500, "the garbage was seen")
        wire = dns.message.make_query("x.test.", "A").to_wire()
        found = await retry(lambda: attempt(ground, wire), "an answer after the flood")
        assert dns.message.from_wire(found).answer[0][0].to_text() == WEB

    ground.play({FIRST: Upstream(says(f"60 A {WEB}"))}, scenario)


def test_close_ends_waiting_queries_and_leaves_nothing(ground: Lab) -> None:
    async def scenario(ground: Lab, server: DnsServer) -> None:
        waiting = [asyncio.ensure_future(ground.ask("x.test.")) for _ in range(20)]
        async with ground.stream() as (reader, writer):
            writer.write(framed(dns.message.make_query("x.test.", "A")))
            await until(lambda: server.pending == 21, "all queries wait")
            await server.close()
            assert (server.pending, server.connections) == (0, 0)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await take(reader)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    ground.play({FIRST: SILENT}, scenario)
