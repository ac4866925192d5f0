"""`aero-l2 connect` when the tunnel goes: a restarted proxy, a dead network, servers that misbehave."""

import asyncio
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
from support import addresses as at
from support import guests
from support.attached import PROGRAM, Client, Connect, client
from support.ns import namespace
from support.proxy import Proxy, run_proxy
from support.wait import until, wait_until
from support.world import World
from websockets import Subprotocol
from websockets.asyncio.server import ServerConnection, serve

CANARY = "canary-0123456789-of-who-reconnects"
_LEASE = f"{at.GUEST}/24 router {at.GATEWAY} dns {at.GATEWAY} lease 86400 server {at.GATEWAY} mtu 1500"


@pytest.fixture(scope="module")
def desk(world: World) -> Iterator[Client]:
    """A machine next to the proxy."""
    with client(world.host, world.resolv_conf) as made:
        yield made


@pytest.fixture(scope="module")
def lan(world: World) -> Iterator[Proxy]:
    """A proxy that every test of this file leaves as it found it."""
    with run_proxy(world, "root") as proxy:
        yield proxy


class Guest:
    """User Mode Linux with a shell on its console; its DHCP client keeps running."""

    def __init__(self, directory: Path, card: str) -> None:
        command = guests.uml_command(directory, card, script="shell.sh")
        self.process = subprocess.Popen(
            ["unshare", "--net", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        self._shown = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._asked = 0
        wait_until(lambda: b"AERO-SHELL" in self._shown, "the guest has booted", 120)

    def _read(self) -> None:
        assert self.process.stdout is not None
        while chunk := os.read(self.process.stdout.fileno(), 65536):
            self._shown += chunk

    @property
    def console(self) -> str:
        return self._shown.decode(errors="replace").replace("\r", "")

    def run(self, command: str, timeout_s: float = 60) -> str:
        """What a command writes on the guest's console."""
        assert self.process.stdin is not None
        self._asked += 1
        begin, end = f"<<{self._asked}>>", f"<</{self._asked}>>"
        self.process.stdin.write(f"echo '{begin}'; {command}; echo '{end}'\n".encode())
        self.process.stdin.flush()
        wait_until(lambda: f"\n{end}" in self.console, f"the guest has done: {command}", timeout_s)
        return self.console.rpartition(f"{begin}\n")[2].partition(f"{end}")[0].strip()

    def close(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self._reader.join(10)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


RENEW = (
    "rm -f /tmp/renewed; kill -USR1 $(cat /tmp/udhcpc.pid); until [ -e /tmp/renewed ]; do usleep 50000; done"
)
NEW_LEASE = (
    "kill -USR2 $(cat /tmp/udhcpc.pid); usleep 100000; rm -f /tmp/bound; kill -USR1 $(cat /tmp/udhcpc.pid); "
    "until [ -e /tmp/bound ]; do usleep 50000; done; cat /tmp/bound"
)
FETCH = f"wget -q -O - http://{at.WEB}/hello"
BOUND = "until [ -e /tmp/bound ]; do usleep 50000; done; cat /tmp/bound"


@pytest.mark.slow
def test_a_guest_survives_a_restarted_proxy_and_a_dead_network_with_its_lease_and_with_a_new_one(
    world: World, desk: Client, tmp_path: Path
) -> None:
    with ExitStack() as stack, ExitStack() as proxies:
        proxy = proxies.enter_context(run_proxy(world, "root"))
        arguments = ["--uml", f"{tmp_path}/u", "--keepalive", "1", "--open-timeout", "2"]
        connect = stack.enter_context(desk.connect(proxy.url, *arguments, run_as="root"))
        wait_until(lambda: connect.output.endswith("\n"), "it prints the argument", 30)
        guest = Guest(tmp_path, connect.output.split()[2])
        stack.callback(guest.close)
        assert guest.run(BOUND) == _LEASE
        assert guest.run(FETCH) == at.HELLO.decode().strip()
        # the proxy is restarted: the lease is good at once, can be renewed, and a new one is to be had
        proxies.close()
        connect.wait_said('"no tunnel"')
        bind = ["--bind", f"{at.LOOPBACK}:{proxy.port}"]
        proxy = proxies.enter_context(run_proxy(world, "root", options=bind))
        connect.wait_said('"tunnel open"', times=2, timeout_s=60)
        assert guest.run(FETCH) == at.HELLO.decode().strip()
        assert guest.run(f"{RENEW}; cat /tmp/renewed") == _LEASE
        assert guest.run(NEW_LEASE) == _LEASE
        # the server is stopped: nothing is answered any more, and no connection ends
        server = proxy.one("server")
        os.kill(server, signal.SIGSTOP)
        proxies.callback(os.kill, server, signal.SIGCONT)
        connect.wait_said("it does not answer any more", timeout_s=60)
        os.kill(server, signal.SIGCONT)
        connect.wait_said('"tunnel open"', times=3, timeout_s=60)
        assert guest.run(FETCH) == at.HELLO.decode().strip()
        assert guest.run(NEW_LEASE) == _LEASE
        # the network between them is gone, and comes back
        world.host.run("ip", "link", "set", "lo", "down")
        stack.callback(world.host.run, "ip", "link", "set", "lo", "up")
        connect.wait_said("it does not answer any more", times=2, timeout_s=60)
        connect.wait_said("no answer within 2 s", timeout_s=60)
        world.host.run("ip", "link", "set", "lo", "up")
        connect.wait_said('"tunnel open"', times=4, timeout_s=60)
        assert guest.run(FETCH) == at.HELLO.decode().strip()
        assert guest.run(NEW_LEASE) == _LEASE
        assert connect.end() == 0
        assert "Traceback" not in connect.log


@pytest.fixture
def tap_name() -> str:
    """The name of an interface that no other test uses."""
    return f"at{os.getpid() % 100_000}"


def _has(world: World, name: str) -> bool:
    return name in world.host.run("ip", "-brief", "link")


def _lease(world: World, name: str, notes: Path) -> str:
    """What busybox udhcpc gets on the interface, without the host's configuration being touched."""
    script = notes / "udhcpc.sh"
    seen = '"$ip/$mask router $router dns $dns lease $lease server $serverid mtu $mtu"'
    script.write_text(f'#!/bin/sh\n[ "$1" = bound ] && echo {seen} >{notes}/bound\nexit 0\n')
    script.chmod(0o755)
    (notes / "bound").unlink(missing_ok=True)
    client_of_dhcp = [
        "busybox",
        "udhcpc",
        "-i",
        name,
        "-f",
        "-q",
        "-n",
        "-t",
        "30",
        "-T",
        "1",
        "-s",
        str(script),
    ]
    world.host.run(*client_of_dhcp)
    return (notes / "bound").read_text().strip()


@pytest.mark.slow
def test_a_tap_is_an_interface_with_a_lease_and_a_cable_that_is_out_without_a_tunnel(
    world: World, desk: Client, tap_name: str, tmp_path: Path
) -> None:
    with ExitStack() as proxies:
        proxy = proxies.enter_context(run_proxy(world, "root"))
        with desk.connect(proxy.url, "--tap", tap_name, run_as="root") as connect:
            connect.wait_ready()
            assert _lease(world, tap_name, tmp_path) == _LEASE
            busy = desk.run(proxy.url, "--tap", tap_name, run_as="root")
            assert (busy.returncode, busy.stderr.count("\n")) == (2, 1)
            assert "in use by another program" in busy.stderr
            proxies.close()
            connect.wait_said('"no tunnel"')
            assert "NO-CARRIER" in world.host.run("ip", "link", "show", tap_name)
            bind = ["--bind", f"{at.LOOPBACK}:{proxy.port}"]
            with run_proxy(world, "root", options=bind):
                connect.wait_said('"tunnel open"', times=2, timeout_s=60)
                assert "NO-CARRIER" not in world.host.run("ip", "link", "show", tap_name)
                assert _lease(world, tap_name, tmp_path) == _LEASE
                assert connect.end() == 0
    assert not _has(world, tap_name)


@pytest.mark.slow
def test_a_tap_that_root_made_for_a_user_needs_no_privilege_and_stays(
    world: World, desk: Client, lan: Proxy, tap_name: str, tmp_path: Path
) -> None:
    refused = desk.run(lan.url, "--tap", tap_name)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert f"ip tuntap add {tap_name} mode tap user 61234" in refused.stderr
    world.host.run("ip", "tuntap", "add", tap_name, "mode", "tap", "user", "61234")
    try:
        down = desk.run(lan.url, "--tap", tap_name)
        assert f"ip link set {tap_name} up" in down.stderr
        world.host.run("ip", "link", "set", tap_name, "up")
        with desk.connect(lan.url, "--tap", tap_name) as connect:
            connect.wait_ready()
            assert _lease(world, tap_name, tmp_path) == _LEASE
            assert connect.end() == 0
        assert _has(world, tap_name)
    finally:
        world.host.run("ip", "link", "delete", tap_name)


def test_whose_a_tap_is_that_root_made_for_another_user_is_said(
    world: World, desk: Client, lan: Proxy, tap_name: str
) -> None:
    world.host.run("ip", "tuntap", "add", tap_name, "mode", "tap", "user", "61235")
    try:
        refused = desk.run(lan.url, "--tap", tap_name)
    finally:
        world.host.run("ip", "link", "delete", tap_name)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"aero-l2: there is a TAP {tap_name}, which is for user 61235: ")
    assert refused.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_tap_can_be_given_to_a_namespace(
    world: World, desk: Client, lan: Proxy, tap_name: str, tmp_path: Path
) -> None:
    with (
        namespace("lab") as lab,
        desk.connect(lan.url, "--tap", tap_name, run_as="root") as connect,
    ):
        connect.wait_ready()
        world.host.run("ip", "link", "set", tap_name, "netns", str(lab.pid))
        lab.run("ip", "link", "set", tap_name, "up")
        lab.run("ip", "address", "add", f"{at.GUEST}/24", "dev", tap_name)
        lab.run("ip", "route", "add", "default", "via", at.GATEWAY)
        assert lab.run("curl", "-sS", "-m", "30", f"http://{at.WEB}/hello") == at.HELLO.decode()
        assert connect.end() == 0
        assert tap_name not in lab.run("ip", "-brief", "link")


def test_a_tap_that_is_removed_ends_it_with_one_line(
    world: World, desk: Client, lan: Proxy, tap_name: str
) -> None:
    with desk.connect(lan.url, "--tap", tap_name, "--quiet", run_as="root") as connect:
        wait_until(lambda: _has(world, tap_name), "the interface is there", 30)
        world.host.run("ip", "link", "delete", tap_name)
        assert connect.wait() == 2
        assert connect.log == f"aero-l2: the interface {tap_name} is gone: somebody removed it\n"


# -- servers that misbehave

Behaviour = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def server(behaviour: Behaviour) -> AsyncIterator[str]:
    """A WebSocket server of our own in this namespace; its address."""
    protocol = [Subprotocol("aero-l2-tunnel-v1")]
    async with serve(behaviour, at.LOOPBACK, 0, subprotocols=protocol, max_size=None) as listening:
        yield f"ws://{at.LOOPBACK}:{next(iter(listening.sockets)).getsockname()[1]}/l2"


def _start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [PROGRAM, "connect", *arguments],
        env={"PATH": os.environ["PATH"], "AERO_L2_CLIENT_TOKEN": CANARY},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@asynccontextmanager
async def connected(url: str, *arguments: str) -> AsyncIterator[Connect]:
    """`aero-l2 connect` in this namespace, for a machine that does not come."""
    with tempfile.TemporaryDirectory() as folder:
        connect = Connect(_start(url, "--uml", f"{folder}/u", *arguments))
        try:
            yield connect
        finally:
            await asyncio.to_thread(connect.close)


async def _ended(connect: Connect) -> int:
    return await asyncio.to_thread(connect.wait)


async def test_the_tunnel_is_closed_by_a_close_frame() -> None:
    codes: list[int | None] = []

    async def lan(connection: ServerConnection) -> None:
        await connection.wait_closed()
        codes.append(connection.close_code)

    async with server(lan) as url, connected(url) as connect:
        await until(lambda: '"tunnel open"' in connect.log, "it is open", 30)
        connect.process.send_signal(signal.SIGTERM)
        assert await _ended(connect) == 0
        await until(lambda: codes == [1000], "the close frame has come")


@pytest.mark.parametrize(
    "message",
    [b"", b"\xa2", b"\x00\x03\x00\x00", b"\xa2\x04\x00\x00", b"\xa2\x03\x00", os.urandom(60_000)],
    ids=["empty", "short", "magic", "version", "header", "random"],
)
async def test_a_server_that_sends_garbage_costs_an_attempt(message: bytes) -> None:
    async def hostile(connection: ServerConnection) -> None:
        await connection.send(message)
        await connection.wait_closed()

    async with server(hostile) as url, connected(url, "--no-reconnect") as connect:
        assert await _ended(connect) == 1
        last = connect.log.splitlines()[-1]
        assert last.startswith("aero-l2: ")
        assert "Traceback" not in connect.log


async def test_frames_of_any_size_and_kind_are_survived() -> None:
    async def hostile(connection: ServerConnection) -> None:
        for size in (0, 1, 13, 14, 2048, 65_535):
            await connection.send(b"\xa2\x03\x00\x00" + bytes(size))
        for kind in range(256):
            await connection.send(bytes([0xA2, 3, kind, 0xFF]) + b"\xff" * 20)
        await connection.send("text")
        await connection.close(1001, "shutting down")

    async with server(hostile) as url, connected(url, "--attempts", "3") as connect:
        assert await _ended(connect) == 1
        assert connect.log.count('"tunnel open"') == 3
        assert "Traceback" not in connect.log
        assert connect.log.splitlines()[-1].startswith("aero-l2: the server closed the tunnel: shutting down")


async def test_what_a_server_says_reaches_the_terminal_in_one_harmless_line() -> None:
    async def hostile(connection: ServerConnection) -> None:
        await connection.close(1008, "bye\n\x1b]0;owned\x07 [red]")

    async with server(hostile) as url, connected(f"{url}?token={CANARY}", "--attempts", "2") as connect:
        assert await _ended(connect) == 1
        assert "\x1b" not in connect.log
        assert "\x07" not in connect.log
        assert connect.log.splitlines()[-1] == (
            "aero-l2: the server closed the tunnel: bye ?]0;owned? [red] (close code 1008)"
        )
        assert CANARY not in connect.log + connect.output


@pytest.mark.slow
async def test_attempts_come_more_and_more_slowly() -> None:
    async def away(connection: ServerConnection) -> None:
        await connection.close(1011, "tunnel failed")

    async with server(away) as url, connected(url, "--attempts", "4") as connect:
        assert await _ended(connect) == 1
    lines = [json.loads(line) for line in connect.log.splitlines() if line.startswith("{")]
    delays = [line["again_in_s"] for line in lines if line["event"] == "no tunnel"]
    assert len(delays) == 3
    for delay, most in zip(delays, (0.5, 1.0, 2.0), strict=True):
        assert most / 2 - 0.1 <= delay <= most + 0.1


def test_the_live_line_is_on_a_terminal_and_the_options_on_stdout(tmp_path: Path) -> None:
    """util-linux' script(1) is the terminal of its stderr. Five attempts take more than a second."""
    command = f"{PROGRAM} connect ws://127.0.0.1:1/l2 --uml {tmp_path}/u --attempts 5 >{tmp_path}/options"
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": os.environ["PATH"], "TERM": "xterm", "COLUMNS": "80"},
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert "· no machine · dropped 0" in done.stdout
    assert "no tunnel: ws://127.0.0.1:1/l2: Connection refused" in done.stdout
    assert (tmp_path / "options").read_text().startswith("linux.uml … vec0:transport=bess,dst=")
