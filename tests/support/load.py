"""One hostile guest floods its tunnel while others measure theirs: the cost, and what is left behind."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from support import addresses as at
from support import procfs
from support.floods import ARP_QUESTION, ARP_REPLY, BLAST_PORT, FROM_OUTSIDE, STREAMS, masked, query
from support.loadclient import ECHO_PORT
from support.ns import Namespace
from support.proxy import Proxy
from support.wait import wait_until

Measured = Literal["echo", "names"]
"""What bystanders measure: datagrams through NAT and all, or names asked of the gateway, each a new one."""
_PERIOD_S = "0.004"
_CLIENT = Path(__file__).with_name("loadclient.py")
_TICKS = os.sysconf("SC_CLK_TCK")
HANDSHAKE = (
    b"GET /l2 HTTP/1.1\r\nHost: load\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: aero-l2-tunnel-v1\r\n\r\n"
)
BYSTANDER_NICE, ATTACKER_NICE = -10, 5
"""Clients and the echo stand for machines elsewhere: the flood must not be what keeps the others waiting for
a processor, and is the first to give way."""


@dataclass(frozen=True)
class RoundTrips:
    """Milliseconds of what was answered, sorted, and how many datagrams were not within 2 s."""

    times: list[float]
    lost: int

    def quantile(self, share: float) -> float:
        """The value below which ``share`` of the answered lie."""
        return self.times[min(len(self.times) - 1, round(share * (len(self.times) - 1)))]

    @property
    def p50(self) -> float:
        """Median in milliseconds."""
        return self.quantile(0.5)

    @property
    def p99(self) -> float:
        """The slowest hundredth, in milliseconds; the lost among them."""
        late = self.lost / (len(self.times) + self.lost)
        return self.quantile(0.99) if late < 0.01 else float("inf")


@dataclass(frozen=True)
class Held:
    """What is held at a moment. Sizes in KiB, cpu in seconds.

    nat: of the hostile tunnel's slirp4netns; conntrack, fragments: of its namespace.
    """

    rss: dict[str, int]
    cpu: dict[str, float]
    descriptors: dict[str, int]
    conntrack: int
    fragments: int


@dataclass(frozen=True)
class Attack:
    """A flood of ``seconds``: frames that the proxy took of it (gave, where it comes from outside; messages
    of a flood that is about these), the bystanders' round trips."""

    kind: str
    seconds: float
    frames: float
    bystanders: RoundTrips
    before: Held
    after: Held


def upgrade(host: Namespace, port: int) -> socket.socket:
    """A WebSocket to the proxy after its handshake."""
    connection = host.connect(at.LOOPBACK, port)
    connection.settimeout(20)
    connection.sendall(HANDSHAKE)
    wait_upgraded(connection)
    return connection


def wait_upgraded(connection: socket.socket) -> None:
    """Read the answer to `HANDSHAKE`, and no byte more."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(1)
    assert answer.startswith(b"HTTP/1.1 101"), answer


class _Client:
    """A running loadclient that waits for its start."""

    def __init__(self, nice: int, *words: str, fds: tuple[int, ...] = ()) -> None:
        command = ["nice", "-n", str(nice), sys.executable, str(_CLIENT), *words, *map(str, fds)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=fds
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def start(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def result(self) -> dict[str, object]:
        """Its JSON, once it is done."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert self._process.wait(60) == 0
        self._process.stdout.close()
        return dict(json.loads(line))


@dataclass
class Load:
    """A proxy with two bystanders and a hostile tunnel."""

    proxy: Proxy
    hostile: socket.socket
    watched: tuple[int, ...]
    nat: int
    inside: Namespace = field(repr=False)

    def idle(self, seconds: float, measuring: Measured = "echo") -> RoundTrips:
        """Round trips while nothing else goes on."""
        watcher = self._watcher(seconds, measuring)
        watcher.start()
        return _round_trips(watcher.result())

    def attack(self, kind: str, seconds: float, measuring: Measured = "echo") -> Attack:
        """Flood for ``seconds`` while the bystanders measure."""
        watcher = self._watcher(seconds, measuring)
        attacker = _Client(ATTACKER_NICE, "attack", str(seconds), kind, fds=(self.hostile.fileno(),))
        before, frames = self.held(), self._frames()
        attacker.start()
        watcher.start()
        seen = _round_trips(watcher.result())
        sent = attacker.result()
        assert not sent["closed"], "the hostile tunnel was closed"
        took, gave = (now - then - len(seen.times) for now, then in zip(self._frames(), frames, strict=True))
        if kind in STREAMS:
            assert isinstance(sent["frames"], int)
            took = sent["frames"]
        return Attack(kind, seconds, gave if kind in FROM_OUTSIDE else took, seen, before, self.held())

    def _frames(self) -> tuple[float, float]:
        """From and to all guests so far."""
        return self.proxy.metric("l2_frames_rx_total"), self.proxy.metric("l2_frames_tx_total")

    def _watcher(self, seconds: float, measuring: Measured) -> _Client:
        return _Client(BYSTANDER_NICE, "watch", str(seconds), _PERIOD_S, measuring, fds=self.watched)

    def held(self) -> Held:
        """Sizes, times and tables now."""
        pids = {"server": self.proxy.one("server"), "netd": self.proxy.one("netd"), "nat": self.nat}
        sockets = self.inside.run("cat", "/proc/net/sockstat")
        fragments = re.search(r"FRAG: inuse \d+ memory (\d+)", sockets)
        assert fragments is not None, sockets
        count = self.inside.run("cat", "/proc/sys/net/netfilter/nf_conntrack_count")
        return Held(
            rss={name: int(procfs.status(pid)["VmRSS"].split()[0]) for name, pid in pids.items()},
            cpu={name: cpu_seconds(pid) for name, pid in pids.items()},
            descriptors={name: len(os.listdir(f"/proc/{pid}/fd")) for name, pid in pids.items()},
            conntrack=int(count),
            fragments=int(fragments[1]) // 1024,
        )


def _round_trips(result: dict[str, object]) -> RoundTrips:
    times, lost = result["times"], result["lost"]
    assert isinstance(times, list)
    assert isinstance(lost, int)
    return RoundTrips(times, lost)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (proc(5), stat fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


class _Held(Namespace):
    """A namespace that a process holds by a descriptor only."""

    def __init__(self, path: Path) -> None:
        super().__init__("tunnel", 0)
        self._path = path

    @property
    def path(self) -> Path:
        return self._path


def _of_newest_tunnel(proxy: Proxy, known: set[str]) -> Namespace:
    server = proxy.one("server")
    for number in os.listdir(f"/proc/{server}/fd"):
        path = f"/proc/{server}/fd/{number}"
        name = procfs.link_of(path)
        if name.startswith("net:[") and name not in known:
            return _Held(Path(path))
    raise AssertionError("the server holds no new namespace")


def _name_the_echo(connection: socket.socket) -> None:
    """Ask for its name: where a list allows names, that is what brings it within reach."""
    connection.sendall(masked(query(b"web.allowed.test", 1, 5999)))
    while b"\x03web" not in (came := connection.recv(65536)):
        assert came, "the tunnel was closed"
        if ARP_QUESTION in came:
            connection.sendall(ARP_REPLY)


def _nats(proxy: Proxy, tunnels: int) -> set[int]:
    """The NAT processes, one a tunnel: each has a child while it opens its TAP."""

    def found() -> set[int] | None:
        nats = set(proxy.with_role("nat"))
        return nats if len(nats) == tunnels else None

    return wait_until(found, "a NAT process for each tunnel") or set()


@contextmanager
def serving(where: Namespace, nice: int, what: Literal["echo", "blast"], port: int) -> Iterator[None]:
    """A service of the internet (`support.loadclient`) at the web server's address."""
    process = subprocess.Popen(
        where.enter("nice", "-n", str(nice), sys.executable, str(_CLIENT), what, at.WEB, str(port)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


@contextmanager
def load(proxy: Proxy, bystanders: int = 2) -> Iterator[Load]:
    """Open the tunnels and the echo that the bystanders ask."""
    proxy.wait_settled()
    with ExitStack() as stack:
        stack.enter_context(serving(proxy.world.internet, BYSTANDER_NICE, "echo", ECHO_PORT))
        stack.enter_context(serving(proxy.world.internet, ATTACKER_NICE, "blast", BLAST_PORT))
        opened = [stack.enter_context(upgrade(proxy.world.host, proxy.port)) for _ in range(bystanders)]
        nats = _nats(proxy, bystanders)
        known = proxy.namespaces()
        hostile = stack.enter_context(upgrade(proxy.world.host, proxy.port))
        (nat,) = _nats(proxy, bystanders + 1) - nats
        made = Load(proxy, hostile, tuple(s.fileno() for s in opened), nat, _of_newest_tunnel(proxy, known))
        time.sleep(0.2)  # the NAT processes take their TAPs
        for connection in (*opened, hostile):
            _name_the_echo(connection)
        made.idle(0.5)
        yield made
