"""Clients that vanish without a word or are as slow as can be: they end in time, or cost nobody anything."""

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support import addresses as at
from support import procfs
from support.cut import cut
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import raw_guest
from support.tunnel import PING, encode
from support.wait import until
from support.world import World

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("proxy_as", ["user"], indirect=True),  # who started it makes no difference here
]

STALL_S = 2.0
UPGRADE_S = 3.0
SETTINGS = {
    "AERO_L2_SEND_STALL_TIMEOUT_MS": str(int(STALL_S * 1000)),
    "AERO_L2_UPGRADE_TIMEOUT_MS": str(int(UPGRADE_S * 1000)),
}
MEMORY_BYTES = 8 << 20
UPGRADE = (
    b"GET /l2 HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: aero-l2-tunnel-v1\r\n\r\n"
)
_GET_FD = 438  # pidfd_getfd(2)


@pytest.fixture
def strict_proxy(world: World, proxy_as: RunAs) -> Iterator[Proxy]:
    """A proxy that is not patient."""
    with run_proxy(world, proxy_as, SETTINGS) as proxy:
        yield proxy


@contextmanager
def servers_socket(proxy: Proxy, client_port: int) -> Iterator[socket.socket]:
    """The very socket by which the server serves a client."""
    server = proxy.one("server")
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(server)
    try:
        for name in os.listdir(f"/proc/{server}/fd"):
            if not procfs.link_of(f"/proc/{server}/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=libc.syscall(_GET_FD, pidfd, int(name), 0)) as found:
                if found.family == socket.AF_INET and _peer_port(found) == client_port:
                    yield found
                    return
    finally:
        os.close(pidfd)
    raise AssertionError(f"the server has no connection with port {client_port}")


def _peer_port(connection: socket.socket) -> int:
    try:
        return int(connection.getpeername()[1])
    except OSError:
        return 0


async def _assert_only_that_one_ended(proxy: Proxy, reason: str, held: int) -> None:
    """One NAT process is left of two, with its namespace, and the log says why."""
    await until(lambda: f'"reason": "{reason}"' in proxy.log, "the reason is in the log", 50)
    await until(lambda: len(proxy.with_role("nat")) == 1, "it is undone")
    await until(lambda: len(proxy.namespaces()) == held - 1, "its namespace is gone")
    assert proxy.metric("l2_sessions_active") == 1


async def test_client_that_vanishes_while_data_waits_is_ended_by_the_stall(strict_proxy: Proxy) -> None:
    async with raw_guest(strict_proxy) as bystander, raw_guest(strict_proxy) as guest:
        await bystander.echo(b"works")
        await guest.echo(b"works")
        held = len(strict_proxy.namespaces())
        with cut(strict_proxy.world.host) as dropped:
            port = guest.tunnel.local_port
            dropped.drop(f"tcp sport {strict_proxy.port} tcp dport {port}")
            await guest.tunnel.send_message(encode(PING, b"its answer never comes"))
            await until(lambda: _waits(strict_proxy, port), "the answer waits")
            dropped.both_ways(port)
            await _assert_only_that_one_ended(strict_proxy, "backpressure", held)
            await bystander.echo(b"goes on")
        guest.tunnel.abort()


def _waits(proxy: Proxy, port: int) -> bool:
    """Whether the server has written something that the client did not acknowledge."""
    shown = proxy.world.host.run("ss", "-Htn", f"sport = :{proxy.port} and dport = :{port}")
    return bool(shown) and int(shown.split()[2]) > 0


async def test_client_that_vanishes_in_silence_is_ended_by_keepalive(strict_proxy: Proxy) -> None:
    """The kernel's keepalive is on, with times that are made short here."""
    async with raw_guest(strict_proxy) as bystander, raw_guest(strict_proxy) as guest:
        await bystander.echo(b"works")
        await guest.echo(b"works")
        held = len(strict_proxy.namespaces())
        with servers_socket(strict_proxy, guest.tunnel.local_port) as connection:
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle, interval, count = (
                connection.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
            assert idle + interval * count <= 180
            for option, value in (
                (socket.TCP_KEEPINTVL, 1),
                (socket.TCP_KEEPCNT, 2),
                (socket.TCP_KEEPIDLE, 1),
            ):
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
        port = guest.tunnel.local_port
        await until(lambda: not _waits(strict_proxy, port), "the client acknowledged the echo")
        with cut(strict_proxy.world.host) as dropped:
            dropped.both_ways(port)
            await _assert_only_that_one_ended(strict_proxy, "peer_gone", held)
            await bystander.echo(b"goes on")
        guest.tunnel.abort()


async def test_request_of_one_byte_a_second_is_ended_and_answered(strict_proxy: Proxy) -> None:
    async with raw_guest(strict_proxy) as bystander:
        connection = await asyncio.to_thread(strict_proxy.world.host.connect, at.LOOPBACK, strict_proxy.port)
        reader, writer = await asyncio.open_connection(sock=connection)
        started = time.monotonic()
        answer = asyncio.create_task(reader.read())
        for byte in b"GET /l2 HTTP/1.1\r\nHost: slow\r\n":
            writer.write(bytes([byte]))
            done, _ = await asyncio.wait([answer], timeout=1)
            if done:
                break
        assert answer.done()
        assert answer.result().startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - started < 5 * UPGRADE_S
        writer.close()
        await bystander.echo(b"does not notice")


async def test_message_of_one_byte_a_second_arrives(strict_proxy: Proxy) -> None:
    """Slow is no fault: nothing waits for it but its own tunnel."""
    async with raw_guest(strict_proxy) as bystander, raw_guest(strict_proxy) as guest:
        message = encode(PING, b"slow")
        for byte in struct.pack("!BB4x", 0x82, 0x80 | len(message)) + message:  # masked with zeros
            assert guest.tunnel.pongs == []
            guest.tunnel.write(bytes([byte]))
            await bystander.echo(b"does not notice")
            await asyncio.sleep(1)
        await until(lambda: guest.tunnel.pongs == [b"slow"], "its answer")
        await guest.echo(b"and works")


async def test_client_that_reads_one_byte_a_second_is_ended_and_costs_little(strict_proxy: Proxy) -> None:
    """Its TCP acknowledges nothing more once its small window is full, so it takes nothing."""
    server = strict_proxy.one("server")
    async with raw_guest(strict_proxy) as bystander:
        await bystander.echo(b"works")
        held = len(strict_proxy.namespaces()) + 1
        before = procfs.resident_bytes(server)
        ended = threading.Event()
        slow = asyncio.create_task(asyncio.to_thread(_read_slowly, strict_proxy, ended))
        deadline = time.monotonic() + 50
        while '"reason": "backpressure"' not in strict_proxy.log:
            assert time.monotonic() < deadline
            await bystander.echo(b"does not notice")
            assert procfs.resident_bytes(server) - before < MEMORY_BYTES
            await asyncio.sleep(0.2)
        await _assert_only_that_one_ended(strict_proxy, "backpressure", held)
        ended.set()
        assert await slow >= 2


def _read_slowly(proxy: Proxy, ended: threading.Event) -> int:
    """Ask for as much as there is room for, read a byte a second until the end; how many bytes that were."""
    connection = proxy.world.host.open_socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(10)
    connection.connect((at.LOOPBACK, proxy.port))
    connection.sendall(UPGRADE)
    assert connection.recv(1, socket.MSG_PEEK)
    message = encode(PING, bytes(100))
    wanted = (struct.pack("!BB4x", 0x82, 0x80 | len(message)) + message) * 10_000
    connection.setblocking(False)
    count = sent = 0
    with connection, contextlib.suppress(ConnectionError):
        while not ended.is_set():
            with contextlib.suppress(BlockingIOError):
                while sent < len(wanted):
                    sent += connection.send(wanted[sent:])
            with contextlib.suppress(BlockingIOError):
                count += len(connection.recv(1))
            ended.wait(1)
    return count
