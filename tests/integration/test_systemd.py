"""The proxy as a service of systemd: what it tells, and the sockets it is handed."""

import asyncio
import http.client
import itertools
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import addresses as at
from support import procfs
from support.ns import Namespace
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import raw_guest
from support.systemd import Notified, activated, listening, notified
from support.wait import until, wait_until
from support.world import World

_WATCHDOG_S = 1.5
_RESTARTS = 3
_PROGRAM = str(Path(__file__).resolve().parents[2] / ".venv/bin/aero-l2")
_NO_AUTH = {"PATH": "/usr/bin:/bin", "AERO_L2_OPEN": "1", "AERO_L2_INSECURE_ALLOW_NO_AUTH": "1"}


@pytest.fixture
def socket_path(tmp_path: Path) -> str:
    """Where systemd would listen for notifications; everyone may get there."""
    tmp_path.chmod(0o755)
    return str(tmp_path / "notify")


@contextmanager
def _service(world: World, run_as: RunAs, told: Notified, **more: str) -> Iterator[Proxy]:
    with run_proxy(world, run_as, {"NOTIFY_SOCKET": told.address, **more}) as proxy:
        yield proxy


async def test_life_of_a_service_is_told_by_its_first_process(
    world: World, proxy_as: RunAs, socket_path: str
) -> None:
    with notified(socket_path) as told, _service(world, proxy_as, told, AERO_L2_DRAIN_MS="60000") as proxy:
        assert told.wait("READY") == "1"
        await until(lambda: "0 tunnels" in told.values("STATUS"), "the status is told")
        async with raw_guest(proxy):
            await until(lambda: told.values("STATUS")[-1] == "1 tunnel", "a tunnel is in the status")
            before_us = time.monotonic_ns() // 1000
            proxy.reload()
            await until(lambda: len(told.values("READY")) == 2, "the reload is over")
            assert not _variable_reaches(proxy.one("netd"), proxy.one("server"))
            proxy.terminate()
            await until(lambda: told.values("STOPPING"), "the end has begun")
            wanted = "Shutting down, 1 tunnel left"
            await until(lambda: told.values("STATUS")[-1] == wanted, "so does the status say")
            assert proxy.is_running()
        assert proxy.wait() == 0
        got = list(told.got)
    assert {one.pid for one in got} == {proxy.pid}
    order = [name for one in got for name in one.fields if name in ("READY", "RELOADING", "STOPPING")]
    assert [name for name, _ in itertools.groupby(order)] == ["READY", "RELOADING", "READY", "STOPPING"]
    (reload,) = (one for one in got if "RELOADING" in one.fields)
    assert before_us <= int(reload.fields["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert int(told.values("EXTEND_TIMEOUT_USEC")[-1]) >= 63_000_000


def _variable_reaches(*pids: int) -> bool:
    return any(b"NOTIFY_SOCKET" in Path(f"/proc/{pid}/environ").read_bytes() for pid in pids)


@pytest.mark.slow
async def test_abstract_socket_is_told_too(world: World) -> None:
    with notified("@aero-l2-test", world.host) as told, _service(world, "root", told):
        assert told.wait("READY") == "1"


@pytest.mark.slow
async def test_socket_in_a_folder_that_the_service_user_cannot_pass_is_told(
    world: World, socket_path: str
) -> None:
    Path(socket_path).parent.chmod(0o700)
    with notified(socket_path) as told, _service(world, "root", told):
        assert told.wait("READY") == "1"


@pytest.mark.slow
@pytest.mark.parametrize("address", ["/nowhere/at/all", "vsock:2:1234"])
async def test_service_works_where_nobody_listens(world: World, address: str) -> None:
    with run_proxy(world, "root", {"NOTIFY_SOCKET": address}) as proxy:
        async with raw_guest(proxy) as guest:
            await guest.echo(b"works")
        lines = [line for line in proxy.log.splitlines() if "NOTIFY_SOCKET" in line]
        assert len(lines) == 1, proxy.log


@pytest.mark.slow
async def test_a_failed_reload_is_over_and_in_the_status(
    world: World, socket_path: str, tmp_path: Path
) -> None:
    file = tmp_path / "aero-l2.toml"
    file.write_text("max_connections = 7\n")
    file.chmod(0o644)
    with (
        notified(socket_path) as told,
        run_proxy(world, "root", {"NOTIFY_SOCKET": socket_path}, options=["--config", str(file)]) as proxy,
    ):
        file.write_text("max_connections = 'many'\n")
        proxy.reload()
        told.wait("READY", 2)
        wait_until(lambda: "the last reload failed" in told.values("STATUS")[-1], "the status says so")
        file.write_text("max_connections = 8\n")
        proxy.reload()
        wait_until(lambda: told.values("STATUS")[-1] == "0 tunnels", "and no more")


@pytest.mark.slow
async def test_unready_service_says_why_and_is_not_ready(world: World, socket_path: str) -> None:
    with (
        notified(socket_path) as told,
        run_proxy(world, "root", {"NOTIFY_SOCKET": socket_path}, tun_mode=0o666, ready=False) as proxy,
    ):
        told.wait("READY")
        (proxy.programs / "nft").unlink()
        with pytest.raises(Exception, match="503"):
            async with proxy.tunnel():
                pass
        wait_until(lambda: "no new ones: nft" in told.values("STATUS")[-1], "the status says why")


@pytest.mark.parametrize("victim", ["server", "netd"])
async def test_watchdog_is_fed_only_while_all_is_well(
    world: World, proxy_as: RunAs, socket_path: str, victim: str
) -> None:
    usec = str(round(_WATCHDOG_S * 1e6))
    with notified(socket_path) as told, _service(world, proxy_as, told, WATCHDOG_USEC=usec) as proxy:
        told.wait("WATCHDOG", 4)
        times = [one.at for one in told.got if "WATCHDOG" in one.fields]
        assert max(later - earlier for earlier, later in itertools.pairwise(times)) < _WATCHDOG_S
        pid = proxy.one("server" if victim == "server" else "netd")
        os.kill(pid, signal.SIGSTOP)
        stopped = time.monotonic()
        silent_until = stopped + 3 * _WATCHDOG_S
        await until(lambda: time.monotonic() > silent_until, "systemd would have noticed", 60)
        late = [one for one in told.got if "WATCHDOG" in one.fields and one.at > stopped + _WATCHDOG_S / 3]
        assert not late
        count = len(told.values("WATCHDOG"))
        os.kill(pid, signal.SIGCONT)
        told.wait("WATCHDOG", count + 2)
        assert proxy.get("/healthz")[0] == 200


@pytest.mark.slow
async def test_watchdog_is_fed_while_netd_is_replaced_and_during_a_drain(
    world: World, socket_path: str
) -> None:
    more = {"WATCHDOG_USEC": "1500000", "AERO_L2_DRAIN_MS": "60000"}
    with notified(socket_path) as told, _service(world, "root", told, **more) as proxy:
        async with raw_guest(proxy):
            told.wait("WATCHDOG", 2)
            proxy.kill(proxy.one("netd"))
            told.wait("WATCHDOG", len(told.values("WATCHDOG")) + 3)
            proxy.terminate()
            told.wait("STOPPING")
            told.wait("WATCHDOG", len(told.values("WATCHDOG")) + 3)


@pytest.mark.slow
async def test_watchdog_of_another_process_is_not_ours(world: World, socket_path: str) -> None:
    more = {"WATCHDOG_USEC": "30000", "WATCHDOG_PID": "1"}
    with notified(socket_path) as told, _service(world, "root", told, **more) as proxy:
        told.wait("READY")
        async with raw_guest(proxy) as guest:
            await guest.echo(b"works")
        proxy.terminate()
        assert proxy.wait() == 0
        assert not told.values("WATCHDOG")


def _get(
    where: Namespace, host: str, port: int, path: str, before: Callable[[], object] = lambda: None
) -> tuple[int, str]:
    """One HTTP request, after ``before()`` on the open connection. Raises OSError, HTTPException where there
    is no answer."""
    connection = http.client.HTTPConnection(host, port, timeout=30)
    sock = where.open_socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.settimeout(30)
    sock.connect((host, port))
    connection.sock = sock
    before()
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


async def test_sockets_that_are_handed_over_are_served(world: World, proxy_as: RunAs) -> None:
    with listening(world.host) as first, listening(world.host, "::1") as second:
        queue = _queue(world, first.getsockname()[1])
        with run_proxy(world, proxy_as, sockets=[first, second]) as proxy:
            assert _queue(world, first.getsockname()[1])[1] >= queue[1]
            assert proxy.port == first.getsockname()[1]
            async with raw_guest(proxy) as guest:
                await guest.echo(b"through the first")
            assert _get(world.host, "::1", second.getsockname()[1], "/healthz")[0] == 200
            assert "--bind has no effect" in proxy.log
            held = [pid for pid in proxy.processes() if _inode(first) in _sockets_of(pid)]
            assert held == [proxy.one("server")]
            proxy.terminate()
            assert await asyncio.to_thread(proxy.wait) == 0
        assert first.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


def _udp() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


def _unix() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind("")  # any abstract address
    sock.listen()
    return sock


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_udp, "is no TCP socket"),
        (_unix, "is no internet socket"),
        (socket.socket, "does not listen: use Accept=no"),
        (Path(os.devnull).open, "is no socket"),
    ],
    ids=["udp", "unix", "not listening", "file"],
)
def test_wrong_socket_ends_with_status_2_and_one_line(make: Callable[[], socket.socket], said: str) -> None:
    good = socket.create_server(("127.0.0.1", 0))
    with good, make() as wrong:
        descriptors = [good.fileno(), wrong.fileno()]
        done = subprocess.run(
            [*activated(descriptors, ["web", "odd"]), _PROGRAM, "serve"],
            env=_NO_AUTH,
            pass_fds=descriptors,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert "descriptor 4 of LISTEN_FDS ('odd')" in line
    assert said in line


def _inode(sock: socket.socket) -> str:
    return f"socket:[{os.fstat(sock.fileno()).st_ino}]"


def _sockets_of(pid: int) -> set[str]:
    return {procfs.link_of(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}


@pytest.mark.slow
async def test_clients_of_a_dual_stack_socket_are_told_apart(world: World) -> None:
    """As systemd makes it of a bare port: IPv4 clients come as IPv4-mapped addresses."""
    limit = {"AERO_L2_MAX_CONNECTIONS_PER_IP": "1"}
    with (
        listening(world.host, "::", dual_stack=True) as sock,
        run_proxy(world, "root", limit, sockets=[sock]) as proxy,
    ):
        async with proxy.tunnel() as tunnel:
            await tunnel.ping(b"works")
            assert '"client": "127.0.0.1"' in proxy.log
            assert f"whoever reaches [::]:{proxy.port} can use" in proxy.log  # though --bind says 127.0.0.1
            assert await asyncio.to_thread(_upgrade_from, world, "127.0.0.2", proxy.port) == b"101"
            assert await asyncio.to_thread(_upgrade_from, world, at.LOOPBACK, proxy.port) == b"429"


def _upgrade_from(world: World, source: str, port: int) -> bytes:
    """Ask for a tunnel from an address of the host; the status."""

    def ask() -> bytes:
        request = (
            b"GET /l2 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: aero-l2-tunnel-v1\r\n\r\n"
        )
        with socket.create_connection((at.LOOPBACK, port), 30, (source, 0)) as sock:
            sock.sendall(request)
            return sock.recv(4096).split()[1]

    return world.host.call(ask)


class _Clients:
    """Threads that ask again and again, each on a connection of its own, and note what became of it.

    Every other one takes its time between the connection and the request.
    """

    def __init__(self, world: World, port: int, count: int = 4) -> None:
        self.answers: list[tuple[int, str]] = []
        self.failures: list[str] = []
        self._world, self._port = world, port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(index % 2,)) for index in range(count)]
        for thread in self._threads:
            thread.start()

    def _ask(self, is_slow: int) -> None:
        path = ("/healthz", "/readyz")[is_slow]
        while not self._stop.is_set():
            try:
                before = lambda: self._stop.wait(0.1 * is_slow)  # noqa: E731
                self.answers.append(_get(self._world.host, at.LOOPBACK, self._port, path, before))
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{path}: {error!r}")

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


@pytest.mark.slow
async def test_a_restart_drops_no_connection_attempt(world: World, proxy_as: RunAs) -> None:
    with listening(world.host) as sock:
        clients = _Clients(world, sock.getsockname()[1])
        try:
            for _ in range(_RESTARTS):
                with run_proxy(world, proxy_as, sockets=[sock]) as proxy:
                    async with proxy.tunnel() as tunnel:
                        await tunnel.ping(b"works")
                        answered = len(clients.answers)
                        await until(lambda more=answered: len(clients.answers) > more + 20, "it serves")
                        proxy.terminate()
                        assert await asyncio.to_thread(proxy.wait) == 0
        finally:
            with run_proxy(world, proxy_as, sockets=[sock]):  # the last ones wait for somebody
                clients.stop()
    assert not clients.failures
    assert {status for status, _ in clients.answers} <= {200, 503}
    assert {body for status, body in clients.answers if status == 503} <= {"shutting down", "starting"}


@pytest.mark.slow
async def test_tunnel_asked_for_while_nobody_serves_opens_once_somebody_does(world: World) -> None:
    with listening(world.host) as sock:
        port = sock.getsockname()[1]
        asking = asyncio.create_task(asyncio.to_thread(_upgrade_from, world, at.LOOPBACK, port))
        await until(lambda: _queue(world, port)[0] > 0, "it waits in the queue")
        with run_proxy(world, "root", sockets=[sock]):
            assert await asking == b"101"


def _queue(world: World, port: int) -> tuple[int, int]:
    """How many connections wait to be accepted, and how many may: Recv-Q and Send-Q of a listening socket
    (ss(8))."""
    _, waiting, limit, *_ = world.host.run("ss", "-Hltn", f"sport = :{port}").split()
    return int(waiting), int(limit)


@pytest.mark.slow
def test_started_by_systemds_own_program(tmp_path: Path) -> None:
    """systemd-socket-activate(1) holds the socket, waits for a client, and then starts the service."""
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with log.open("w") as file:
        process = subprocess.Popen(
            [
                *("systemd-socket-activate", f"--listen=127.0.0.1:{port}", "--fdname=web"),
                *(f"--setenv={name}={value}" for name, value in _NO_AUTH.items()),
                *(_PROGRAM, "serve"),
            ],
            stdout=file,
            stderr=file,
        )
    try:
        wait_until(lambda: "Listening on" in log.read_text(), "it listens", 30)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        assert re.search(rf'"address": "127.0.0.1:{port}"', log.read_text()), log.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
