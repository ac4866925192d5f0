"""Where a run takes place: a closed world with a server in it, or a server elsewhere, seen from outside."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import addresses as at
from support.ns import Namespace
from support.proxy import Proxy, run_proxy
from support.world import World, world

from aero_l2.client.address import Target
from aero_l2.probe.dhcp import Lease
from aero_l2.quota.files import file_budget
from bench import outputs, wire
from bench.beginning import Beginning
from bench.clocks import yardstick
from bench.peer import UNTIL_EOF
from bench.settings import QUIET, public

TREE = Path(__file__).resolve().parent.parent
CACHE = TREE / ".cache" / "bench"
FILES = 65_536
"""Descriptors that a server may open, where the machine allows it: enough for more than 1,000 tunnels."""
PATIENCE_S = 600
"""For one result of a program: a transfer's through a slow line, too."""


@dataclass(frozen=True)
class Work:
    """How much is measured in a round."""

    megabytes: int = 180
    pieces: int = 6  # in which they are moved, so that a busy moment does not hit one path only
    seconds: float = 1.5  # at most, for a kind of latency or a flood
    samples: int = 300
    openings: int = 50
    idle: int = 50
    many: int = 1000
    split: bool = True  # CPU time into user and system: of a little work that would be single ticks


QUICK = Work(megabytes=8, pieces=1, seconds=0.3, samples=40, openings=16, idle=8, many=40, split=False)


class Failed(Exception):
    """Something could not be measured; the text is one line for people."""


class Running:
    """A Python program of ours that says ``ready`` and then waits for its start.

    told: a line for it before that: what no command line may show. All methods raise Failed with what the
    program says went wrong, a line of JSON like ``{"error": "…"}``, or once it has taken too long.
    """

    def __init__(self, command: list[str], *, told: str | None = None, **options: Any) -> None:
        self._name = " ".join(command[len(command) - command[::-1].index("-m") :])
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TREE, **options
        )
        try:
            if told is not None:
                self._tell(told)
            self.expect("ready")
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Of the program."""
        return self._process.pid

    def expect(self, word: str) -> None:
        """Wait for a line."""
        line = self._line(PATIENCE_S)
        if line != f"{word}\n":
            raise Failed(f"{self._name}: {line!r} instead of {word}")

    def start(self) -> None:
        """Let it begin."""
        self._tell("go")

    def result(self, within_s: float = PATIENCE_S) -> Any:
        """What it prints next, which is JSON."""
        return json.loads(self._line(within_s))

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, and its last line says why
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()

    def _line(self, within_s: float) -> str:
        assert self._process.stdout is not None
        late = threading.Timer(within_s, self._process.kill)
        late.daemon = True
        late.start()
        try:
            line: str = self._process.stdout.readline()
            is_late = not late.is_alive()
        finally:
            late.cancel()
        if not line:
            why = f"took longer than {within_s:g} s" if is_late else f"ended with {self._process.wait(10)}"
            raise Failed(f"{self._name} {why}")
        if line.startswith('{"error": '):
            raise Failed(f"{self._name}: {json.loads(line)['error']}")
        return line

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait(10)
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.stdout.close()


@dataclass
class Server:
    """What gives tunnels: its name in tables, its address, and the process where it is ours."""

    name: str
    target: Target
    where: Namespace | None = None
    proxy: Proxy | None = field(default=None, repr=False)

    def client(self, module: str, *words: str) -> list[str]:
        """The command line of a program that stands where clients of this server are."""
        command = [sys.executable, "-m", module, *words]
        return command if self.where is None else self.where.enter(*command)

    def open(self) -> tuple[socket.socket, Lease]:
        """A tunnel and what its guest 0 was given. Raises TunnelRefused."""
        begun = Beginning(self.target)
        connection = self._connection(begun)
        try:
            begun.shake_hands(connection)
            return connection, begun.lease(connection)
        except BaseException:
            connection.close()
            raise

    def _connection(self, begun: Beginning) -> socket.socket:
        host, port = wire.endpoint(self.target)
        if self.target.is_tls:
            return self._through_tls(host, port)
        return begun.connect() if self.where is None else self.where.connect(host, port)

    def _through_tls(self, host: str, port: int) -> socket.socket:
        near, far = socket.socketpair()
        with far:  # the relay ends by itself when the near end is closed
            subprocess.Popen(
                self.client("bench.tls", host, str(port), str(far.fileno())),
                pass_fds=(far.fileno(),),
                stdin=subprocess.DEVNULL,
                cwd=TREE,
            )
        return near

    def processes(self) -> set[int]:
        """All of it; none where they cannot be seen."""
        return set(self.proxy.processes()) if self.proxy else set()

    def nats(self) -> set[int]:
        """The NAT processes of all its tunnels; none where they cannot be seen."""
        return set(self.proxy.with_role("nat")) if self.proxy else set()


def openings(servers: list[Server], count: int, at_once: int) -> Running:
    """`bench.openings` of these servers."""
    command = servers[0].client("bench.openings", str(count), str(at_once))
    return Running(command, told=" ".join(server.target.url for server in servers))


@dataclass
class Lab:
    """Everything a measurement may use. peer: the address of a running `bench.peer`, as guests reach it."""

    work: Work
    servers: list[Server]
    peer: str | None
    world: World | None
    settings: dict[str, str]
    speeds: list[float] = field(default_factory=list)

    def note_speed(self) -> None:
        """How fast the machine is, between two measurements."""
        self.speeds.append(yardstick())

    @property
    def server(self) -> Server:
        """The one that is measured."""
        return self.servers[0]

    @contextmanager
    def fresh_servers(self, tunnels: int) -> Iterator[list[Server]]:
        """More of the same server, for what would leave traces in it: enough for so many tunnels with the
        descriptors that a process may open here."""
        assert self.world is not None
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        each = file_budget(limit, 0).tunnels
        with ExitStack() as stack:
            number = -(-tunnels // each)
            yield [stack.enter_context(started("", self.world, self.settings)) for _ in range(number)]


def card() -> str:
    """card.c, compiled."""
    source = TREE / "bench/card.c"
    target = CACHE / f"card-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if not target.exists():
        outputs.folder(CACHE)
        new = target.with_name(f".new-{target.name}-{os.getpid()}")
        subprocess.run(["gcc", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-o", new, source], check=True)
        new.rename(target)
        outputs.give(target)
    return str(target)


@contextmanager
def started(name: str, built: World, settings: Mapping[str, str]) -> Iterator[Server]:
    """A server of our own on the host of that world. Ends the program where it does not start."""
    with ExitStack() as stack:
        try:
            proxy = stack.enter_context(run_proxy(built, "root", {**QUIET, **settings}))
        except AssertionError as error:
            said = str(error).splitlines() or [""]
            raise SystemExit(f"bench: the server did not start: {said[-1]}") from None
        yield Server(name, Target.of(proxy.url, origin=""), built.host, proxy)
        with contextlib.redirect_stderr(io.StringIO()):  # its log is of interest where something goes wrong
            stack.close()


@contextmanager
def local(work: Work, settings: dict[str, str], also: dict[str, str]) -> Iterator[Lab]:
    """A closed world, in which nothing leaves the machine. also: settings of a second server, to compare."""
    with contextlib.suppress(ValueError, OSError):  # not every root may raise it
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aero-l2-bench-")))
        folder.chmod(0o755)
        built = stack.enter_context(world(folder))
        peer = Running(built.internet.enter(sys.executable, "-m", "bench.peer", UNTIL_EOF, at.WEB))
        stack.callback(peer.close)
        servers = [stack.enter_context(started("tunnel", built, settings))]
        if also:
            name = "tunnel, " + " ".join(
                f"{key.removeprefix('AERO_L2_')}={value}" for key, value in public(also).items()
            )
            servers.append(stack.enter_context(started(name, built, {**settings, **also})))
        yield Lab(work, servers, at.WEB, built, settings)


@contextmanager
def outside(work: Work, target: Target, peer: str | None) -> Iterator[Lab]:
    """A server elsewhere, of which only the outside is seen."""
    yield Lab(work, [Server("tunnel", target)], peer, None, {})
