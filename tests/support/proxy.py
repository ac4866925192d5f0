"""Runs the real proxy inside the test world's host namespace: as root or as an ordinary user.

It gets a mount namespace of its own, with the world's resolv.conf, a /dev/net/tun whose mode the test
decides, and a PATH with copies of the programs that it runs, so that a test can take one away without
touching the machine.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from support import addresses as at
from support import logevents, procfs
from support.output import Output
from support.stage import devices_of, make_tun, private_mounts, private_programs
from support.systemd import activated
from support.tunnel import RawTunnel, Tunnel
from support.wait import wait_until
from support.world import World

RunAs = Literal["root", "user"]
Role = Literal["launch", "netd", "server", "nat", "other"]
MODULES: dict[Role, str] = {"netd": "netns.netd", "server": "aero_l2.app"}
READY = "AERO_L2_PROXY_READY ws://"
USER_ID = 61234  # an ordinary user that owns nothing and is in no group
AS_USER = ("setpriv", f"--reuid={USER_ID}", f"--regid={USER_ID}", "--clear-groups", "--inh-caps=-all", "--")
SERVICE_USER = "aero-l2"
_REPOSITORY = Path(__file__).resolve().parents[2]


def role_of(command: str, name: str, parents: str) -> Role:
    """Which process this is but the first; `other`: a program that runs for a moment, as nft(8) does."""
    if command == parents:  # forked, and about to become another program
        return "other"
    if name == "slirp4netns" or command.split(" ")[0].endswith("slirp4netns"):
        return "nat"
    return next((role for role, module in MODULES.items() if f"-m {module}" in command), "other")


class Proxy:
    """A running proxy: its processes, its log and the ways to reach it."""

    def __init__(
        self, world: World, run_as: RunAs, process: subprocess.Popen[bytes], programs: Path, devices: Path
    ) -> None:
        self.world = world
        self.run_as = run_as
        self.programs = programs  # the proxy's PATH: the only place where it finds programs
        self.devices = devices  # the proxy's /dev/net, as seen from the machine
        self.port = 0
        self._process = process
        self._known: set[int] = set()
        assert process.stdout is not None
        assert process.stderr is not None
        self._stdout, self._stderr = Output(process.stdout.fileno()), Output(process.stderr.fileno())

    @property
    def stdout(self) -> list[str]:
        """Every line it wrote to stdout so far."""
        return self._stdout.lines()

    @property
    def pid(self) -> int:
        """The process that was started: launch."""
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything the proxy wrote to stderr so far."""
        return "".join(self._stderr.lines())

    @property
    def url(self) -> str:
        """The tunnel's address, as the proxy announced it; valid inside the host namespace."""
        return f"ws://{at.LOOPBACK}:{self.port}/l2"

    def wait_ready(self) -> None:
        """Wait for the line that promises tunnels."""
        wait_until(lambda: self._announced() or self._process.poll() is not None, "the proxy is ready", 30)
        line = self._announced()
        assert line, f"the proxy ended with {self._process.poll()}:\n{self.log}"
        self.port = int(line.removeprefix(READY).split("/")[0].rpartition(":")[2])
        assert line in (f"{READY}{host}:{self.port}/l2\n" for host in (at.LOOPBACK, "[::]"))

    def wait_listening(self) -> None:
        """Wait until it takes connections, which it does also while it cannot make tunnels; by its log."""
        wait_until(lambda: self._listening() or self._process.poll() is not None, "the proxy listens", 30)
        assert self._listening(), f"the proxy ended with {self._process.poll()}:\n{self.log}"
        self.port = self._listening()

    def _listening(self) -> int:
        events = (json.loads(line) for line in self._stderr.lines() if line.startswith("{"))
        return next((event["port"] for event in events if event["event"] == "listening"), 0)

    def _announced(self) -> str:
        return next((line for line in self.stdout if line.startswith(READY)), "")

    def processes(self) -> list[int]:
        """Every living process of the proxy, oldest first, also one that lost its parent after an earlier
        look."""
        self._known.add(self.pid)
        self._known.update(procfs.descendants(*self._known))
        self._known = {pid for pid in self._known if procfs.is_alive(pid)}
        return sorted(self._known, key=procfs.started)

    def role(self, pid: int) -> Role:
        """Which of the proxy's processes this is."""
        if pid == self.pid:
            return "launch"
        command, about = procfs.command(pid), procfs.status(pid)
        if not about or about["State"].startswith("Z"):  # it ended after we saw it
            return "other"
        return role_of(command, about["Name"], procfs.command(int(about["PPid"])))

    def with_role(self, role: Role) -> list[int]:
        """The living processes of one role, oldest first."""
        return [pid for pid in self.processes() if self.role(pid) == role]

    def one(self, role: Role) -> int:
        """The process of a role that there is once."""
        found = self.with_role(role)
        assert len(found) == 1, f"{role}: {[(pid, procfs.command(pid)) for pid in self.processes()]}"
        return found[0]

    def tunnel(
        self, path: str = "/l2", headers: Mapping[str, str] | None = None, credential: str | None = None
    ) -> Tunnel:
        """A tunnel to be opened by ``async with``; raises support.tunnel.RefusedError when the upgrade is
        refused. ``credential`` is offered as a subprotocol."""
        return Tunnel(self.world.host, self.port, path, headers, credential)

    def raw_tunnel(self, path: str = "/v86") -> RawTunnel:
        """The same as v86 opens it, if the proxy has that endpoint."""
        return RawTunnel(self.world.host, self.port, path)

    def event(self, name: str) -> dict[str, Any]:
        """The first line of its log with this event."""
        events = (json.loads(line) for line in self._stderr.lines() if line.startswith("{"))
        return next(event for event in events if event["event"] == name)

    def get(self, path: str, port: int = 0) -> tuple[int, str]:
        """One HTTP request, to the tunnels' port unless another is given: status and body."""
        connection = http.client.HTTPConnection(at.LOOPBACK, port or self.port, timeout=15)
        connection.sock = self.world.host.connect(at.LOOPBACK, port or self.port)
        connection.sock.settimeout(15)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        """The value of a metric; its labels as they are exposed, in braces behind the name."""
        return self.metrics()[name]

    def metrics(self) -> dict[str, float]:
        """Every series of /metrics, by name and labels as they are exposed."""
        lines = self.get("/metrics")[1].splitlines()
        return {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
        }

    def wait_settled(self) -> None:
        """Wait until every tunnel is undone: what it did is counted by then, and nothing more comes."""
        wait_until(lambda: not self.with_role("nat"), "every tunnel is undone")

    def namespaces(self) -> set[str]:
        """The network namespaces that its processes hold, its tunnels' among them, without the host's."""
        held = {name for pid in self.processes() for name in procfs.namespaces_of(pid)}
        return held - {procfs.link_of(str(self.world.host.path))}

    def terminate(self, number: signal.Signals = signal.SIGTERM) -> None:
        """SIGTERM, or another signal, to launch."""
        self._process.send_signal(number)

    def reload(self) -> str:
        """SIGHUP to launch; returns what was logged until the reload was done or refused."""
        before = len(self._stderr.lines())
        self._process.send_signal(signal.SIGHUP)
        done = ("settings reloaded", "reload failed")
        wait_until(lambda: any(word in "".join(self._stderr.lines()[before:]) for word in done), "it reloads")
        return "".join(self._stderr.lines()[before:])

    def kill(self, *of: int) -> None:
        """SIGKILL to the given processes, or to all of them."""
        for pid in of or self.processes():
            if procfs.is_alive(pid):
                os.kill(pid, signal.SIGKILL)

    def wait(self, timeout_s: float = 20) -> int:
        """Wait for launch to end and return its exit status."""
        status = self._process.wait(timeout_s)
        for reader in (self._stdout, self._stderr):
            reader.join(timeout_s)
        return status

    def is_running(self) -> bool:
        """Whether launch still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """Stop what is left of it, politely first."""
        self.processes()
        if self.is_running():
            self.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self.kill(*self.processes(), self.pid)
        self._process.wait(10)
        wait_until(lambda: not self.processes(), "every process of the proxy ended")
        for reader in (self._stdout, self._stderr):
            reader.join(10)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()


def _command(
    world: World,
    mounts: int,
    run_as: RunAs,
    env: dict[str, str],
    options: Sequence[str],
    sockets: Sequence[int],
) -> list[str]:
    variables = [f"{name}={value}" for name, value in env.items()]
    program = [
        *(activated(sockets) if sockets else ()),
        str(_REPOSITORY / ".venv/bin/aero-l2"),
        "serve",
        "--bind",
        "127.0.0.1:0",
        "--ready-stdout",
    ]
    program += options
    return [
        *("nsenter", f"--net={world.host.path}", f"--mount=/proc/{mounts}/ns/mnt", "--wd=/", "--"),
        *(AS_USER if run_as == "user" else ()),
        *("env", "-i", *variables, *program),
    ]


@contextmanager
def run_proxy(
    world: World,
    run_as: RunAs,
    env: dict[str, str] | None = None,
    *,
    tun_mode: int | None = None,
    ready: bool = True,
    options: Sequence[str] = (),
    sockets: Sequence[socket.socket] = (),
    before: Callable[[Path, Path, int], None] = lambda programs, devices, mounts: None,
) -> Iterator[Proxy]:
    """Start the proxy and stop it afterwards; nothing of it is left.

    ``env``: settings on top of the open, unauthenticated ones. ``tun_mode``: mode of its /dev/net/tun, by
    default as is common: closed to others for root (launch has to see to it), open for an ordinary user.
    ``ready``: wait until tunnels can be made; otherwise only until it listens. ``options``: of ``serve``.
    ``sockets``: listening ones, handed over as systemd does it; they stay open here.
    ``before``: what to change of its programs, its /dev/net and its mounts (held by a process) before that.
    """
    with private_mounts(world.resolv_conf) as mounts, private_programs() as programs:
        settings = {
            "PATH": str(programs),
            "AERO_L2_OPEN": "1",
            "AERO_L2_INSECURE_ALLOW_NO_AUTH": "1",
            **({"AERO_L2_USER": SERVICE_USER} if run_as == "root" else {}),
            **(env or {}),
        }
        default_mode = 0o600 if run_as == "root" else 0o666
        devices = devices_of(mounts)
        make_tun(devices, default_mode if tun_mode is None else tun_mode)
        descriptors = [sock.fileno() for sock in sockets]
        before(programs, devices, mounts)
        process = subprocess.Popen(
            _command(world, mounts, run_as, settings, options, descriptors),
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        proxy = Proxy(world, run_as, process, programs, devices)
        try:
            proxy.wait_ready() if ready else proxy.wait_listening()
            yield proxy
        finally:
            proxy.close()
            sys.stderr.write(f"--- log of the proxy ({run_as}) ---\n{proxy.log}")
        if settings.get("AERO_L2_LOG_FORMAT") != "console":
            logevents.check(proxy.log)  # whatever the test was about
