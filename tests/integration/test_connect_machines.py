"""`aero-l2 connect` with emulators: QEMU and User Mode Linux by the options it prints, and hostile ones."""

import json
import os
import shlex
import signal
import socket
import stat
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw
from support import addresses as at
from support import guests
from support.attached import Client, Connect, client
from support.proxy import Proxy, RunAs, run_proxy
from support.wait import wait_until
from support.world import World

EVERYONE: list[RunAs] = ["user", "root"]
MAC = "02:00:00:00:00:0f"
STALL_MS = "1000"


@pytest.fixture(scope="module")
def lan(world: World) -> Iterator[Proxy]:
    """A proxy that every test leaves as it found it; it gives up soon on whoever takes nothing."""
    with run_proxy(world, "root", {"AERO_L2_SEND_STALL_TIMEOUT_MS": STALL_MS}) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def desk(world: World) -> Iterator[Client]:
    """A machine next to the proxy."""
    with client(world.host, world.resolv_conf) as made:
        yield made


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for sockets that every user can write to."""
    made = tmp_path_factory.mktemp("s")
    made.chmod(0o777)
    return made


def said(connect: Connect, event: str) -> list[dict[str, object]]:
    """Its log lines of one kind."""
    lines = (json.loads(line) for line in connect.log.splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == event]


def hint(connect: Connect) -> list[str]:
    """The options for the machine, as printed, without what stands for the rest of its command line."""
    wait_until(
        lambda: connect.output.endswith("\n") or connect.process.poll() is not None, "it prints options", 30
    )
    assert connect.output, connect.log
    return shlex.split(connect.output)[2:]


# -- real machines


@pytest.mark.slow
def test_qemu_with_the_printed_options_gets_all_the_network_it_is_promised(
    lan: Proxy, desk: Client, folder: Path
) -> None:
    with desk.connect(lan.url, "--qemu", f"unix:{folder}/qemu.sock", run_as="root") as connect:
        console = guests.console(guests.qemu_command(hint(connect)))
        assert guests.checks(console) == guests.EXPECTED, f"{console}\n--- connect ---\n{connect.log}"
        connect.wait_said('"machine gone"')
        assert connect.end() == 0
        assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_user_mode_linux_with_the_printed_argument_gets_all_the_network_it_is_promised(
    lan: Proxy, desk: Client, folder: Path
) -> None:
    with desk.connect(lan.url, "--uml", f"{folder}/uml.sock", run_as="root") as connect:
        (card,) = hint(connect)
        console = guests.console(guests.uml_command(folder, card))
        assert guests.checks(console) == guests.EXPECTED, f"{console}\n--- connect ---\n{connect.log}"
        connect.wait_said('"machine gone"')


# -- machines made of a socket


class Machine:
    """The emulator's end of the socket, and of it a guest with the static address."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.settimeout(20)
        self._is_stream = connection.type == socket.SOCK_STREAM
        self._buffer = b""

    def send(self, frame: bytes) -> None:
        self.connection.sendall(struct.pack("!I", len(frame)) + frame if self._is_stream else frame)

    def receive(self) -> bytes:
        if not self._is_stream:
            return self.connection.recv(65536)
        length = struct.unpack("!I", self._exactly(4))[0]
        return self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            chunk = self.connection.recv(65536)
            assert chunk, "the socket was closed"
            self._buffer += chunk
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def find_gateway(self) -> str:
        """ARP, repeated while nothing is heard; the gateway's MAC address."""
        request = bytes(
            Ether(src=MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(psrc=at.GUEST, pdst=at.GATEWAY, hwsrc=MAC)
        )
        self.connection.settimeout(1)
        for _ in range(30):
            self.send(request)
            try:
                while True:
                    answer = Ether(self.receive())
                    if ARP in answer and answer[ARP].op == 2:
                        return str(answer[ARP].hwsrc)
            except TimeoutError:
                continue
        raise AssertionError("the gateway does not answer")


@contextmanager
def machine(path: Path, kind: socket.SocketKind = socket.SOCK_SEQPACKET) -> Iterator[Machine]:
    """Connect to the socket as an emulator does."""
    with socket.socket(socket.AF_UNIX, kind) as connection:
        wait_until(lambda: connection.connect_ex(str(path)) == 0, f"{path} takes connections", 30)
        yield Machine(connection)


def test_a_machine_that_goes_and_comes_back_is_served_again(lan: Proxy, desk: Client, folder: Path) -> None:
    path = folder / "uml.sock"
    with desk.connect(lan.url, "--uml", str(path)) as connect:
        connect.wait_ready()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for _ in range(3):
            with machine(path) as guest:
                assert guest.find_gateway() == at.GATEWAY_MAC
        connect.wait_said('"machine gone"', times=3)
        assert len(said(connect, "tunnel open")) == 1


@pytest.mark.slow
def test_a_qemu_that_listens_is_connected_to_as_often_as_it_comes(
    lan: Proxy, desk: Client, folder: Path
) -> None:
    path = folder / "qemu.sock"
    with desk.connect(lan.url, "--qemu-connect", f"unix:{path}") as connect:
        assert "server=on" in " ".join(hint(connect))
        for _ in range(2):
            with socket.socket(socket.AF_UNIX) as listening:
                mask = os.umask(0)  # from the first moment on: it is looked for already
                listening.bind(str(path))
                os.umask(mask)
                listening.listen()
                listening.settimeout(30)
                with listening.accept()[0] as connection:
                    assert Machine(connection).find_gateway() == at.GATEWAY_MAC
            path.unlink()
        connect.wait_said('"machine gone"', times=2)


@pytest.mark.parametrize("run_as", EVERYONE)
def test_another_users_listener_is_no_machine(lan: Proxy, desk: Client, folder: Path, run_as: RunAs) -> None:
    path = folder / "qemu.sock"
    listen = f"""
import os, socket
listening = socket.socket(socket.AF_UNIX)
listening.bind({str(path)!r})
os.chmod({str(path)!r}, 0o666)
listening.listen()
print("up", flush=True)
connection, _ = listening.accept()
print(connection.recv(1))
"""
    stranger = ["setpriv", "--reuid=61235", "--regid=61235", "--clear-groups", "--", "/usr/bin/python3", "-c"]
    with subprocess.Popen([*stranger, listen], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "up\n"
            done = desk.run(lan.url, "--qemu-connect", f"unix:{path}", "--quiet", run_as=run_as)
            assert other.stdout.readline() == "b''\n"
        finally:
            other.kill()
    assert done.returncode == 2
    assert done.stderr.startswith(f"aero-l2: user 61235 listens on {path}, not you")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_second_machine_is_turned_away_and_the_first_keeps_its_network(
    lan: Proxy, desk: Client, folder: Path
) -> None:
    path = folder / "uml.sock"
    with desk.connect(lan.url, "--uml", str(path)) as connect, machine(path) as first:
        assert first.find_gateway() == at.GATEWAY_MAC
        with machine(path) as second:
            assert second.connection.recv(1) == b""
        connect.wait_said("another machine is turned away")
        assert first.find_gateway() == at.GATEWAY_MAC


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_an_end_that_leaves_nothing(
    lan: Proxy, desk: Client, folder: Path, number: signal.Signals
) -> None:
    path = folder / "uml.sock"
    with desk.connect(lan.url, "--uml", str(path)) as connect, machine(path) as guest:
        assert guest.find_gateway() == at.GATEWAY_MAC
        assert connect.end(number) == 0
        assert not path.exists()
        assert "Traceback" not in connect.log
    lan.wait_settled()


@pytest.mark.slow
def test_a_killed_predecessors_socket_is_replaced(lan: Proxy, desk: Client, folder: Path) -> None:
    path = folder / "uml.sock"
    with desk.connect(lan.url, "--uml", str(path)) as connect:
        connect.wait_ready()
        refused = desk.run(lan.url, "--uml", str(path))
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "is in use by another program" in refused.stderr
        connect.process.kill()
        connect.wait()
    assert path.exists()
    with desk.connect(lan.url, "--uml", str(path)) as again, machine(path) as guest:
        assert guest.find_gateway() == at.GATEWAY_MAC, again.log


# -- hostile and broken ones


def test_a_garbled_stream_is_dismissed_in_one_line_and_the_next_machine_is_served(
    lan: Proxy, desk: Client, folder: Path
) -> None:
    path = folder / "qemu.sock"
    with desk.connect(lan.url, "--qemu", f"unix:{path}") as connect:
        connect.wait_ready()
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100_000):
            with machine(path, socket.SOCK_STREAM) as hostile:
                hostile.connection.sendall(garbage)
                assert _is_closed(hostile.connection)
        with machine(path, socket.SOCK_STREAM) as guest:
            assert guest.find_gateway() == at.GATEWAY_MAC
        lines = [str(line["why"]) for line in said(connect, "machine dismissed")]
        assert len(lines) == 2
        assert all("is it QEMU's -netdev stream?" in line for line in lines)
        assert "Traceback" not in connect.log


def _is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.slow
def test_frames_that_are_none_are_dropped_and_counted_and_the_tunnel_stays(
    lan: Proxy, desk: Client, folder: Path
) -> None:
    path = folder / "uml.sock"
    with desk.connect(lan.url, "--uml", str(path), "--report", "0.2") as connect, machine(path) as guest:
        assert guest.find_gateway() == at.GATEWAY_MAC
        for length in (1, 13, 2049, 9014, 60_000):
            guest.send(b"\xff" * length)
        assert guest.find_gateway() == at.GATEWAY_MAC
        connect.wait_said('"dropped_bad_length": 5')
        assert len(said(connect, "tunnel open")) == 1


@pytest.mark.slow
def test_a_machine_that_reads_nothing_loses_frames_and_not_the_tunnel(
    lan: Proxy, desk: Client, folder: Path
) -> None:
    path = folder / "uml.sock"
    with desk.connect(lan.url, "--uml", str(path), "--report", "0.2") as connect, machine(path) as guest:
        gateway = guest.find_gateway()
        datagram = bytes(
            Ether(src=MAC, dst=gateway)
            / IP(src=at.GUEST, dst=at.WEB)
            / UDP(sport=4000, dport=at.ECHO_PORT)
            / Raw(bytes(1000))
        )
        done = threading.Event()
        flood = threading.Thread(target=_flood, args=(guest, datagram, done))
        flood.start()
        try:
            connect.wait_said('"dropped_machine_slow"', timeout_s=60)
            before = len(said(connect, "summary"))
            longer = int(STALL_MS) // 200 * 2
            wait_until(
                lambda: len(said(connect, "summary")) > before + longer, "the server's patience ends", 60
            )
        finally:
            done.set()
            flood.join()
        assert guest.find_gateway() == at.GATEWAY_MAC
        assert len(said(connect, "tunnel open")) == 1, connect.log


def _flood(guest: Machine, frame: bytes, done: threading.Event) -> None:
    while not done.wait(0.001):
        guest.send(frame)


@pytest.mark.slow
def test_a_full_queue_drops_and_the_machine_goes_on(world: World, desk: Client, folder: Path) -> None:
    path = folder / "uml.sock"
    with run_proxy(world, "root") as proxy:
        options = ["--uml", str(path), "--report", "0.2", "--keepalive", "0"]
        with desk.connect(proxy.url, *options) as connect, machine(path) as guest:
            gateway = guest.find_gateway()
            frame = bytes(Ether(src=MAC, dst=gateway) / Raw(bytes(1500)))
            server = proxy.one("server")
            with ExitStack() as stack:
                subprocess.run(["kill", "-STOP", str(server)], check=True)
                stack.callback(subprocess.run, ["kill", "-CONT", str(server)], check=True)
                wait_until(lambda: _dropped(connect, guest, frame), "frames are dropped for a full queue", 90)
                for _ in range(5000):
                    guest.send(frame)
            assert guest.find_gateway() == at.GATEWAY_MAC
            assert len(said(connect, "tunnel open")) == 1


def _dropped(connect: Connect, guest: Machine, frame: bytes) -> bool:
    for _ in range(500):
        guest.send(frame)
    return '"dropped_queue_full"' in connect.log
