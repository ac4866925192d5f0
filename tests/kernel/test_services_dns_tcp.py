"""DNS over TCP as a guest meets it: pipelines, half-close, and what a rude guest may not hold."""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import dns.message
import dns.rcode
import pytest
from dns.message import Message
from kernel.test_services_dns_lab import FIRST, WEB, Lab, Upstream, framed, lab, reply, says, take
from support.wait import until

from aero_l2.services.dns.server import DnsServer
from aero_l2.services.dns.tcp import MAX_CONNECTIONS


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path) as made:
        yield made


def web(delay_s: float = 0.0) -> Upstream:
    return Upstream(says(f"60 A {WEB}"), lambda query: reply(query, f"60 A {WEB}").to_wire(), delay_s)


def query(name: str = "x.test.", rdtype: str = "A") -> Message:
    return dns.message.make_query(name, rdtype)


def test_pipelined_queries_are_all_answered(ground: Lab) -> None:
    queries = [query(f"n{number}.test.", ("A", "AAAA")[number % 2]) for number in range(300)]

    async def scenario(ground: Lab, server: DnsServer) -> None:
        async with ground.stream() as (reader, writer):
            writer.write(b"".join(framed(item) for item in queries))
            answers = {
                (answer.id, str(answer.question[0].name)) for answer in [await take(reader) for _ in queries]
            }
        assert answers == {(item.id, str(item.question[0].name)) for item in queries}

    ground.play({FIRST: web()}, scenario)


def test_query_in_single_bytes_is_answered(ground: Lab) -> None:
    async def scenario(ground: Lab, server: DnsServer) -> None:
        async with ground.stream() as (reader, writer):
            for byte in framed(query()):
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)
            assert (await take(reader)).rcode() == dns.rcode.NOERROR

    ground.play({FIRST: web()}, scenario)


def test_half_closed_connection_still_gets_its_answers(ground: Lab) -> None:
    async def scenario(ground: Lab, server: DnsServer) -> None:
        async with ground.stream() as (reader, writer):
            for number in range(40):
                writer.write(framed(query(f"n{number}.test.")))
            writer.write_eof()
            assert {(await take(reader)).rcode() for _ in range(40)} == {dns.rcode.NOERROR}
            assert await asyncio.wait_for(reader.read(), 5) == b""

    ground.play({FIRST: web(delay_s=0.1)}, scenario)


def test_malformed_query_is_formerr_and_the_connection_lives_on(ground: Lab) -> None:
    async def scenario(ground: Lab, server: DnsServer) -> None:
        async with ground.stream() as (reader, writer):
            writer.write(b"\x00\x0c" + b"\x12\x34" + bytes(10) + framed(query()))
            assert (await take(reader)).rcode() == dns.rcode.FORMERR
            assert (await take(reader)).rcode() == dns.rcode.NOERROR

    ground.play({FIRST: web()}, scenario)


def test_query_over_the_limit_ends_the_connection(ground: Lab) -> None:
    async def scenario(ground: Lab, server: DnsServer) -> None:
        async with ground.stream() as (reader, writer):
            writer.write(b"\xff\xff" + bytes(100))
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await take(reader)

    ground.play({FIRST: web()}, scenario)


@pytest.mark.parametrize(
    "sent", [b"", b"\x00", b"\x00\x20abc"], ids=["nothing", "half-a-length", "half-a-query"]
)
def test_idle_connection_is_ended(ground: Lab, sent: bytes) -> None:
    ground.tcp_idle_s = 0.3

    async def scenario(ground: Lab, server: DnsServer) -> None:
        start = time.monotonic()
        async with ground.stream() as (reader, writer):
            writer.write(sent)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await take(reader)
        assert 0.2 < time.monotonic() - start < 2
        assert server.connections == 0

    ground.play({FIRST: web()}, scenario)


def test_waiting_for_a_slow_upstream_is_not_idle(ground: Lab) -> None:
    ground.tcp_idle_s = 0.2

    async def scenario(ground: Lab, server: DnsServer) -> None:
        async with ground.stream() as (reader, writer):
            writer.write(framed(query()))
            assert (await take(reader)).rcode() == dns.rcode.NOERROR

    ground.play({FIRST: web(delay_s=0.7)}, scenario)


def test_connection_beyond_the_limit_is_closed_at_once(ground: Lab) -> None:
    async def scenario(ground: Lab, server: DnsServer) -> None:
        async with AsyncExitStack() as stack:
            for _ in range(MAX_CONNECTIONS):
                await stack.enter_async_context(ground.stream())
            await until(lambda: server.connections == MAX_CONNECTIONS, "all connections stand")
            reader, _ = await stack.enter_async_context(ground.stream())
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await take(reader)
            assert server.connections == MAX_CONNECTIONS
        await until(lambda: server.connections == 0, "all connections are gone")
        async with ground.stream() as (reader, writer):
            writer.write(framed(query()))
            assert (await take(reader)).rcode() == dns.rcode.NOERROR

    ground.play({FIRST: web()}, scenario)


@pytest.mark.slow
def test_guest_that_never_reads_its_answers_is_cut_off(ground: Lab) -> None:
    text = [f'60 TXT "{index:03d}{"x" * 250}"' for index in range(50)]
    large = Upstream(
        lambda asked: [reply(asked, *text).to_wire(max_size=512, prefer_truncation=True)],
        lambda asked: reply(asked, *text).to_wire(max_size=65535),
    )

    async def scenario(ground: Lab, server: DnsServer) -> None:
        with ground.guest.connect("10.0.2.2", 53) as sock:
            await until(lambda: server.connections == 1, "the connection stands")
            with pytest.raises(ConnectionError):
                await asyncio.wait_for(ask_on(sock), 20)
            assert server.connections == 0

    async def ask_on(sock: socket.socket) -> None:
        while True:
            await asyncio.get_running_loop().sock_sendall(sock, framed(query("big.test.", "TXT")))
            await asyncio.sleep(0.01)

    ground.play({FIRST: large}, scenario)
