"""Guests that leave data in the host's TCP sockets lose those connections, and nobody else loses anything."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from support import addresses as at
from support.nsguest import NamespaceGuest, ns_guest
from support.proxy import Proxy, RunAs, run_proxy
from support.wait import until
from support.world import World

MIB = 1 << 20
LIMIT = 3 * MIB
FLOWS = 48
PORT = 9999
RESET = "aero_l2_tcp_connections_reset_total"
SOON_S = 50.0  # 3 s are usual
_MUTE = "table ip mute { chain out { type filter hook output priority 0; policy drop; }; }"

# Sends without an end and reads nothing.
SOURCE = """
import socket, sys, threading
def serve(connection):
    try:
        while True: connection.sendall(bytes(65536))
    except OSError: pass
listening = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=256)
print("listening", flush=True)
while True: threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
"""
# Opens connections, fills them or not, reads nothing; when told to, counts those that ended or not.
HOARD = """
import json, socket, sys
address, port, flows, fills = sys.argv[1], *map(int, sys.argv[2:])
held = [socket.create_connection((address, port), 30) for _ in range(flows)]
print("open", flush=True)
for one in held:
    one.settimeout(0.05)
    try:
        while fills: one.sendall(bytes(65536))
    except OSError: pass
sys.stdin.readline()
ended = 0
for one in held:
    one.settimeout(30)
    try:
        got = 0
        if not fills: one.sendall(b"x")
        while got < 1_000_000:
            if not (data := one.recv(65536)): raise ConnectionError
            got += len(data)
    except ConnectionError: ended += 1
print(json.dumps([ended, flows - ended]))
"""
ECHO = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 30) as connection:
    for line in sys.stdin:
        connection.sendall(line.encode())
        print(connection.recv(100).decode(), end="", flush=True)
"""


@pytest.fixture
def source(world: World) -> Iterator[None]:
    command = world.internet.enter(sys.executable, "-c", SOURCE, at.WEB, str(PORT))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        try:
            yield
        finally:
            process.kill()


@contextmanager
def bounded(world: World, proxy_as: RunAs) -> Iterator[Proxy]:
    with run_proxy(world, proxy_as, {"AERO_L2_MAX_TCP_MEMORY_BYTES": str(LIMIT)}) as proxy:
        yield proxy


@asynccontextmanager
async def program(guest: NamespaceGuest, text: str, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python program on the guest, ended with the block."""
    pipe = subprocess.PIPE
    command = guest.command(sys.executable, "-uc", text, *words)
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def said(process: asyncio.subprocess.Process, line: bytes = b"") -> str:
    """What it says, after it was told a line."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line)
    return (await asyncio.wait_for(process.stdout.readline(), SOON_S)).decode().strip()


def held(world: World) -> int:
    """Bytes in the host's sockets of those connections, in and out."""
    words = world.host.enter("ss", "-tmnH", "state", "connected", "dport", "=", f":{PORT}")
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return sum(int(size) for size in re.findall(r"skmem:\(r(\d+)", told) + re.findall(r",w(\d+)", told))


async def restart_netd(proxy: Proxy) -> None:
    """netd dies; the next one takes over what there is."""
    netd = proxy.one("netd")
    proxy.kill(netd)
    await until(lambda: proxy.with_role("netd") not in ([], [netd]), "a new netd")


async def hoard(proxy: Proxy, *, fills: bool, restart: bool = False) -> None:
    """One guest hoards until the host has had enough, another one has its connection all the time."""
    async with (
        proxy.tunnel() as tunnel,
        proxy.tunnel() as another,
        ns_guest(tunnel) as guest,
        ns_guest(another) as bystander,
        program(bystander, ECHO, at.WEB, str(at.ECHO_PORT)) as echo,
        program(guest, HOARD, at.WEB, str(PORT), str(FLOWS), str(int(fills))) as hoarder,
    ):
        assert await said(echo, b"before\n") == "before"
        assert await said(hoarder) == "open"
        if not fills:
            guest.namespace.run("nft", _MUTE)
        if restart:
            await restart_netd(proxy)
        await until(lambda: proxy.metric(RESET) > 0, "connections are reset", SOON_S)
        await until(lambda: held(proxy.world) <= LIMIT, "little is held", SOON_S)
        assert re.search(
            r'"event": "connections reset".*"session": 1, .*TCP connections held .* at most 3\.0"', proxy.log
        )
        assert not re.search('"connections reset".*"session": 2,', proxy.log)
        if not fills:
            guest.namespace.run("nft", "delete table ip mute")
        ended, alive = json.loads(await said(hoarder, b"now\n"))
        assert 0 < ended <= proxy.metric(RESET)
        assert ended + alive == FLOWS
        assert tunnel.is_open
        assert await said(echo, b"after\n") == "after"


async def test_what_a_silent_guest_does_not_take_is_bounded(
    world: World, proxy_as: RunAs, source: None
) -> None:
    with bounded(world, proxy_as) as proxy:
        await hoard(proxy, fills=False)


@pytest.mark.parametrize("proxy_as", ["user"], indirect=True)
async def test_so_is_what_a_peer_does_not_take_and_under_the_next_netd(
    world: World, proxy_as: RunAs, source: None
) -> None:
    with bounded(world, proxy_as) as proxy:
        await hoard(proxy, fills=True, restart=True)
