"""`aero-l2 connect URL -- COMMAND`: a command whose only network is the tunnel, for an ordinary user."""

import errno
import json
import os
import pty
import select
import signal
import socket
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import ExitStack
from fcntl import ioctl
from pathlib import Path

import pytest
from support import addresses as at
from support import procfs
from support.attached import Client, client
from support.proxy import Proxy, RunAs, run_proxy
from support.wait import wait_until
from support.world import World

EVERYONE: list[RunAs] = ["user", "root"]
CANARY = "canary-0123456789-of-the-client"
UNTIL_TOLD = 'trap "exit 9" {0}; echo up; while :; do sleep 0.05; done'


@pytest.fixture(scope="module")
def lan(world: World) -> Iterator[Proxy]:
    """A proxy that every test of this file leaves as it found it."""
    with run_proxy(world, "root") as proxy:
        yield proxy


@pytest.fixture(scope="module")
def desk(world: World) -> Iterator[Client]:
    """A machine next to the proxy."""
    with client(world.host, world.resolv_conf) as made:
        yield made


@pytest.mark.parametrize("run_as", EVERYONE)
def test_the_command_reaches_the_internet_by_name(lan: Proxy, desk: Client, run_as: RunAs) -> None:
    done = desk.run(lan.url, "--", "curl", "-sS", "http://web.example.test/hello", run_as=run_as)
    assert (done.returncode, done.stdout, done.stderr) == (0, at.HELLO.decode(), "")


@pytest.mark.parametrize("run_as", EVERYONE)
def test_the_command_has_the_guests_network_and_no_privilege(lan: Proxy, desk: Client, run_as: RunAs) -> None:
    script = (
        "id -u; ip -brief -4 address; ip -brief -6 address; ip -4 route; grep ^nameserver /etc/resolv.conf; "
        "grep ^hosts /etc/nsswitch.conf; grep -E '^(Cap|NoNewPrivs|SigBlk|SigIgn)' /proc/self/status"
    )
    done = desk.run(lan.url, "--", "sh", "-c", script, run_as=run_as)
    user = "0" if run_as == "root" else "61234"
    assert [" ".join(line.split()) for line in done.stdout.splitlines()] == [
        user,
        "lo UNKNOWN 127.0.0.1/8",
        f"tap0 UNKNOWN {at.GUEST}/24",
        "lo UNKNOWN ::1/128",
        f"default via {at.GATEWAY} dev tap0 proto static",
        f"10.0.2.0/24 dev tap0 proto kernel scope link src {at.GUEST}",
        f"nameserver {at.GATEWAY}",
        "hosts: files dns",
        "SigBlk: 0000000000000000",
        "SigIgn: 0000000000000000",
        *(f"Cap{name}: 0000000000000000" for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")),
        "NoNewPrivs: 1",
    ]


def test_ping_works_in_it_without_privilege(lan: Proxy, desk: Client) -> None:
    script = f"""
from socket import *
with socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP) as pinging:
    pinging.settimeout(20)
    pinging.sendto(bytes((8, 0, 0, 0, 0, 0, 0, 1)) + b"echo", ({at.GATEWAY!r}, 0))
    print(pinging.recv(100)[8:])
"""
    done = desk.run(lan.url, "--", "python3", "-c", script)
    assert done.stdout == "b'echo'\n", done.stderr


def test_the_command_cannot_reach_the_host_or_its_lan(world: World, lan: Proxy, desk: Client) -> None:
    name = b"\0aero-l2-test-of-the-host"
    targets = [at.LOOPBACK, at.HOST_PUBLIC, at.HOST_PRIVATE, at.OTHER]
    script = f"""
import json, socket, sys
def reaches(family, address):
    with socket.socket(family) as knocking:
        knocking.settimeout(5)
        return knocking.connect_ex(address) == 0
seen = [reaches(socket.AF_INET, (target, {at.SERVICE_PORT})) for target in {targets}]
try: unix = reaches(socket.AF_UNIX, {name!r})
except OSError: unix = False
print(json.dumps([*seen, unix, reaches(socket.AF_INET, ("{at.WEB}", {at.HTTP_PORT}))]))
"""
    before = [len(services.events) for services in world.denied_services()]
    with world.host.open_socket(socket.AF_UNIX) as abstract:
        abstract.bind(name)
        abstract.listen()
        done = desk.run(lan.url, "--", "python3", "-c", script)
    assert json.loads(done.stdout) == [False] * 5 + [True], done.stderr
    assert [len(services.events) for services in world.denied_services()] == before


def test_resolvers_of_the_host_are_out_of_sight(lan: Proxy, world: World) -> None:
    with client(world.host, world.resolv_conf) as other:
        root = Path(f"/proc/{other.mounts}/root")
        shell = ["nsenter", f"--mount=/proc/{other.mounts}/ns/mnt", "sh", "-ec"]
        subprocess.run([*shell, "mount -t tmpfs -o mode=755 tmpfs /run; mkdir /run/avahi-daemon"], check=True)
        with socket.socket(socket.AF_UNIX) as listening:
            folder = os.open(root / "run/avahi-daemon", os.O_PATH)
            listening.bind(f"/proc/self/fd/{folder}/socket")
            listening.listen()
            os.close(folder)
            os.chmod(root / "run/avahi-daemon/socket", 0o666)
            connect = "socket.socket(socket.AF_UNIX).connect_ex('/run/avahi-daemon/socket')"
            script = f"import socket; print({connect})"
            inside = other.run(lan.url, "--", "python3", "-c", script)
            assert inside.stdout == f"{errno.ECONNREFUSED}\n", inside.stderr


def test_the_command_has_our_standard_streams_as_they_are(lan: Proxy, desk: Client) -> None:
    done = desk.run(lan.url, "--", "sh", "-c", "cat; ls /proc/self/fd | wc -l >&2", stdin="one\ntwo")
    assert (done.returncode, done.stdout) == (0, "one\ntwo")
    assert done.stderr == "4\n", "0, 1, 2 and the one that ls reads with"


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -9 $$"), 137),
        (("/etc/passwd",), 126),
        (("nonesuch",), 127),
    ],
)
def test_its_exit_status_is_ours(lan: Proxy, desk: Client, command: tuple[str, ...], status: int) -> None:
    done = desk.run(lan.url, "--", *command)
    assert done.returncode == status
    assert done.stderr.count("\n") == (1 if status in (126, 127) else 0)


@pytest.mark.parametrize(("there", "status"), [(False, 127), (True, 126)])
def test_a_folder_it_may_not_search_does_not_count(
    lan: Proxy, desk: Client, tmp_path: Path, there: bool, status: int
) -> None:
    closed, opened = tmp_path / "closed", tmp_path / "open"
    closed.mkdir(0o700)
    opened.mkdir()
    tmp_path.chmod(0o755)
    if there:
        (opened / "nonesuch").touch(0o644)
    path = f"{closed}:{opened}:{os.environ['PATH']}"
    done = desk.run(lan.url, "--", "nonesuch", env={"PATH": path})
    assert (done.returncode, done.stderr.count("\n")) == (status, 1), done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_that_is_sent_to_us_reaches_it(lan: Proxy, desk: Client, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    with desk.connect(lan.url, "--", "sh", "-c", UNTIL_TOLD.format(name)) as connect:
        wait_until(lambda: connect.output == "up\n", "the command runs", 30)
        assert connect.end(number) == 9


def test_a_signal_that_ends_it_is_128_and_its_number(lan: Proxy, desk: Client) -> None:
    with desk.connect(lan.url, "--", "sh", "-c", "echo up; exec sleep 1000") as connect:
        wait_until(lambda: connect.output == "up\n", "the command runs", 30)
        assert connect.end(signal.SIGTERM) == 128 + signal.SIGTERM


@pytest.mark.parametrize("run_as", EVERYONE)
def test_a_command_does_not_outlive_a_killed_connect(lan: Proxy, desk: Client, run_as: RunAs) -> None:
    script = "trap '' HUP TERM INT; echo $$; while :; do sleep 0.05; done"
    with desk.connect(lan.url, "--", "bash", "-c", script, run_as=run_as) as connect:
        wait_until(lambda: connect.output.endswith("\n"), "the command runs", 30)
        pid = int(connect.output)
        assert procfs.is_alive(pid)
        connect.process.kill()
        wait_until(lambda: not procfs.is_alive(pid), "the command has ended", 20)


class Terminal:
    """A program with a terminal of its own."""

    def __init__(self, command: list[str]) -> None:
        self._end, other = pty.openpty()
        settings = termios.tcgetattr(other)
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(other, termios.TCSANOW, settings)
        self.process = subprocess.Popen(
            command,
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(other)
        self.shown = ""
        self._seen = 0

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def in_front(self) -> str:
        """The command line of whoever leads the foreground process group."""
        return procfs.command(os.tcgetpgrp(self._end))

    def wait_shown(self, text: str, timeout_s: float = 30) -> None:
        """Wait for the text after what was waited for before."""
        end = time.monotonic() + timeout_s
        while (found := self.shown.find(text, self._seen)) < 0:
            assert time.monotonic() < end, (
                f"{text!r} is not in {self.shown[self._seen :]!r} of {self.shown!r}"
            )
            if select.select([self._end], [], [], 0.1)[0]:
                self.shown += os.read(self._end, 65536).decode(errors="replace").replace("\r", "")
        self._seen = found + len(text)

    def close(self) -> None:
        os.close(self._end)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


@pytest.fixture
def terminals() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def on_terminal(terminals: ExitStack, command: list[str]) -> Terminal:
    made = Terminal(command)
    terminals.callback(made.close)
    return made


def test_ctrl_c_reaches_it_once(lan: Proxy, desk: Client, terminals: ExitStack) -> None:
    script = "trap 'echo interrupted' INT; echo up; read line; read line; echo $line; exit 5"
    terminal = on_terminal(terminals, desk.command_line([lan.url, "--", "bash", "-c", script], "user"))
    terminal.wait_shown("up\n")
    terminal.type("\x03")
    terminal.wait_shown("interrupted\n")
    terminal.type("first\nsecond\n")
    terminal.wait_shown("second\n")
    assert terminal.process.wait(20) == 5
    assert terminal.shown.count("interrupted") == 1


@pytest.mark.slow
def test_a_shell_behind_the_tunnel_has_job_control(lan: Proxy, desk: Client, terminals: ExitStack) -> None:
    line = desk.command_line([lan.url, "--", "bash", "--norc", "--noprofile", "-i"], "user", {"PS1": "> "})
    terminal = on_terminal(terminals, line)
    terminal.wait_shown("> ")
    terminal.type("sleep 1000\n")
    wait_until(lambda: terminal.in_front() == "sleep 1000", "it sleeps", 20)
    terminal.type("\x1a")
    terminal.wait_shown("Stopped")
    terminal.wait_shown("> ")
    terminal.type("fg\n")
    wait_until(lambda: terminal.in_front() == "sleep 1000", "it sleeps in the foreground", 20)
    terminal.type("\x03")
    terminal.wait_shown("> ")
    terminal.type("curl -sS http://web.example.test/hello; exit 3\n")
    terminal.wait_shown(at.HELLO.decode())
    assert terminal.process.wait(20) == 3
    assert "no job control" not in terminal.shown


def _runs(root: int, command: str) -> bool:
    return any(procfs.command(pid) == command for pid in procfs.descendants(root))


@pytest.mark.slow
def test_it_does_not_start_before_there_is_a_tunnel(world: World, desk: Client) -> None:
    with run_proxy(world, "root") as before:
        url, port = before.url, before.port
    with desk.connect(url, "--", "curl", "-sS", f"http://{at.WEB}/hello") as connect:
        connect.wait_said("no tunnel: ", times=2)
        assert not _runs(connect.process.pid, f"curl -sS http://{at.WEB}/hello")
        assert connect.output == ""
        with run_proxy(world, "root", options=["--bind", f"{at.LOOPBACK}:{port}"]):
            assert connect.wait(60) == 0
            assert connect.output == at.HELLO.decode()


def test_ctrl_c_before_it_has_started_is_an_end(desk: Client) -> None:
    with desk.connect("ws://127.0.0.1:1/l2", "--", "touch", "/tmp/never") as connect:
        connect.wait_said("no tunnel")
        assert connect.end(signal.SIGINT) == 128 + signal.SIGINT


@pytest.mark.slow
def test_the_command_stays_while_the_tunnel_is_reopened(world: World, desk: Client) -> None:
    fetch = f"curl -sS -m 20 --retry 9 http://{at.WEB}/hello\n"
    with ExitStack() as proxies:
        first = proxies.enter_context(run_proxy(world, "root"))
        with desk.connect(first.url, "--", "sh") as connect:
            stdin = connect.process.stdin
            assert stdin is not None
            stdin.write(fetch)
            stdin.flush()
            wait_until(lambda: connect.output == at.HELLO.decode(), "it fetches something", 30)
            proxies.close()
            connect.wait_said("no tunnel: ")
            with run_proxy(world, "root", options=["--bind", f"{at.LOOPBACK}:{first.port}"]):
                connect.wait_said("tunnel open", timeout_s=60)
                stdin.write(fetch + "exit 4\n")
                stdin.flush()
                assert connect.wait(60) == 4
                assert connect.output == at.HELLO.decode() * 2


def _with_key(key: str) -> dict[str, str]:
    return {"AERO_L2_AUTH_MODE": "token", "AERO_L2_API_KEY": key}


@pytest.mark.slow
def test_a_command_whose_tunnel_is_refused_for_good_is_hung_up(world: World, desk: Client) -> None:
    token = {"AERO_L2_CLIENT_TOKEN": CANARY}
    script = 'trap "echo hung up; exit 3" HUP; echo up; while :; do sleep 0.05; done'
    with ExitStack() as proxies:
        first = proxies.enter_context(run_proxy(world, "root", _with_key(CANARY)))
        with desk.connect(first.url, "--", "sh", "-c", script, env=token) as connect:
            wait_until(lambda: connect.output == "up\n", "the command runs", 30)
            proxies.close()
            bind = ["--bind", f"{at.LOOPBACK}:{first.port}"]
            with run_proxy(world, "root", _with_key("another-key-0123456789"), options=bind):
                assert connect.wait(60) == 125
            assert connect.output == "up\nhung up\n"
            assert connect.log.splitlines()[-1].startswith("aero-l2: HTTP 401: invalid token")
            assert CANARY not in connect.log


@pytest.fixture(scope="module")
def locked(world: World) -> Iterator[Proxy]:
    """A proxy that wants a key."""
    with run_proxy(world, "root", _with_key(CANARY)) as proxy:
        yield proxy


def test_the_secret_is_in_nothing_that_a_command_can_see(locked: Proxy, desk: Client) -> None:
    look = "tr '\\0' '\\n' <$p/environ; tr '\\0' ' ' <$p/cmdline"
    script = f"env; for p in /proc/[0-9]*; do {look}; done 2>/dev/null; true"
    token = {"AERO_L2_CLIENT_TOKEN": CANARY, "INNOCENT": "kept"}
    done = desk.run(locked.url, "--", "sh", "-c", script, env=token)
    assert done.returncode == 0
    assert "INNOCENT=kept" in done.stdout
    assert CANARY not in done.stdout + done.stderr
    assert CANARY not in locked.log


@pytest.mark.parametrize("env", [{}, {"AERO_L2_CLIENT_TOKEN": "wrong-0123456789abcdef"}])
def test_a_refused_command_is_not_run(locked: Proxy, desk: Client, env: dict[str, str]) -> None:
    done = desk.run(locked.url, "--", "echo", "ran", env=env)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("aero-l2: HTTP 401: invalid token")
    assert done.stderr.count("\n") == 1
    assert "0123456789" not in done.stderr


def test_without_user_namespaces_it_says_what_to_do(world: World) -> None:
    with client(world.host, world.resolv_conf) as other:
        line = other.command_line(["ws://127.0.0.1:1/l2", "--", "true"], "root")
        closed = 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"'
        done = subprocess.run(
            [
                "unshare",
                "--user",
                "--map-root-user",
                "--mount",
                "sh",
                "-c",
                closed,
                "sh",
                *line[line.index("env") :],
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 125
    assert done.stderr == (
        "aero-l2: user namespaces are turned off on this machine: "
        "have root run sysctl -w user.max_user_namespaces=10000\n"
    )


@pytest.mark.parametrize(
    ("mode", "said"), [(None, "/dev/net/tun is missing"), (0o600, "no permission on /dev/net/tun")]
)
def test_without_a_tun_device_it_says_what_to_do(world: World, mode: int | None, said: str) -> None:
    with client(world.host, world.resolv_conf, tun_mode=mode) as other:
        done = other.run("ws://127.0.0.1:1/l2", "--", "true")
    assert done.returncode == 125
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
