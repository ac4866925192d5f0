"""deploy/edge in the test world: Debian's nginx with the very same files, as compose.yaml starts it.

    visitors 198.18.N.10, .11 … ── 198.18.N.0/24 ── edge ── 172.30.N.0/28 ── host (proxy on 172.30.N.3:8090)

It is an ordinary user without capabilities, and sees a file system that is read-only but for /run.
"""

import base64
import hashlib
import hmac
import http.client
import itertools
import json
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copy2, copytree
from typing import Any, Protocol

from support import procfs
from support.images import downloaded
from support.ns import Namespace, link, namespace
from support.tunnel import Tunnel
from support.wait import wait_until
from support.world import World

TREE = Path(__file__).resolve().parents[2]
FILES = TREE / "deploy/edge"
PRODUCTION = TREE / "deploy/production.env"
NAME = "lab.example"
ORIGIN = f"https://{NAME}"
SECRET = "the-gateways-secret-0123456789abcdef"
_USER = 61235
_numbers = itertools.count(90)
_START = """
mount -o remount,bind,ro /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -m 1777 /run/aero-edge /run/state
mount --bind "$1" /etc/hosts
shift
exec setpriv --reuid="$1" --regid="$1" --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs \
  /bin/sh "$2"
"""


def production() -> dict[str, str]:
    """deploy/production.env, as it is."""
    lines = [line for line in PRODUCTION.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def cookie(sid: str, secret: str = SECRET, lasts_s: int = 600) -> dict[str, str]:
    """What a gateway sets that shares the secret, made as contract and vectors say and by no code of ours."""
    claims = json.dumps({"v": 1, "sid": sid, "exp": int(time.time()) + lasts_s}).encode()
    payload = base64.urlsafe_b64encode(claims).rstrip(b"=")
    signature = base64.urlsafe_b64encode(hmac.digest(secret.encode(), payload, hashlib.sha256)).rstrip(b"=")
    return {"Cookie": f"aero_session={(payload + b'.' + signature).decode()}"}


@dataclass
class Edge:
    """A running edge, who visits it, and what it wrote."""

    inside: str  # its network with the proxy: the first three numbers
    outside: str
    visitors: Namespace
    process: subprocess.Popen[bytes] = field(init=False)
    output: Path = field(init=False)

    @property
    def address(self) -> str:
        """Where visitors find it."""
        return f"{self.outside}.2"

    @property
    def log(self) -> str:
        """Everything that it wrote, access log and errors."""
        return self.output.read_text()

    def requests(self) -> list[dict[str, Any]]:
        """The lines of the access log."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    @property
    def state(self) -> Path:
        """The folder of the certificate that it made, as seen from here."""
        return Path(f"/proc/{self.process.pid}/root", "run/state")

    def workers(self) -> list[int]:
        """nginx's worker processes, also those that only finish what they have."""
        return [pid for pid in procfs.descendants(self.process.pid) if procfs.is_alive(pid)]

    def tls(self) -> ssl.SSLContext:
        """What trusts the certificate that it made, for the name of the lab."""
        return ssl.create_default_context(cadata=(self.state / "fullchain.pem").read_text())

    def connect(self, port: int = 8443, visitor: int = 10) -> socket.socket:
        """A TCP connection of one of the visitors; blocking, with a time-out."""
        sock = self.visitors.open_socket()
        sock.settimeout(15)
        sock.bind((f"{self.outside}.{visitor}", 0))
        sock.connect((self.address, port))
        return sock

    def encrypted(self, visitor: int = 10) -> ssl.SSLSocket:
        """The same with TLS."""
        return self.tls().wrap_socket(self.connect(visitor=visitor), server_hostname=NAME)

    def ask(
        self,
        target: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        *,
        visitor: int = 10,
        plain: bool = False,
    ) -> http.client.HTTPResponse:
        """One request, its target as it is: the answer, whose body is read and in `msg`."""
        connection = http.client.HTTPConnection(NAME)
        connection.sock = self.connect(8080, visitor) if plain else self.encrypted(visitor)
        try:
            connection.request(method, target, headers=dict(headers or {}))
            answer = connection.getresponse()
            answer.msg.set_payload(answer.read().decode())
            return answer
        finally:
            connection.close()

    def tunnel(
        self,
        sid: str | None = "alice",
        *,
        visitor: int = 10,
        origin: str = ORIGIN,
        path: str = "/l2",
        headers: Mapping[str, str] | None = None,
    ) -> "EdgeTunnel":
        """A tunnel as a page of the lab opens it, with the cookie of ``sid``, to be opened by ``async
        with``."""
        credentials = cookie(sid) if sid is not None else {}
        return EdgeTunnel(self, visitor, path, {"Origin": origin, **credentials, **(headers or {})})

    def reload(self) -> None:
        """SIGHUP; new workers serve when it returns, old ones keep their tunnels."""
        before = set(self.workers())
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(set(self.workers()) - before) >= (os.cpu_count() or 1), "new workers", 20)


class Reached(Protocol):
    """What clients reach over TLS."""

    visitors: Namespace

    def tls(self) -> ssl.SSLContext:
        """What trusts its certificate."""

    def connect(self, port: int = 8443, visitor: int = 10) -> socket.socket:
        """A TCP connection to it."""


class EdgeTunnel(Tunnel):
    """A tunnel through the edge, over wss."""

    def __init__(
        self, edge: Reached, visitor: int, path: str, headers: Mapping[str, str], name: str = NAME
    ) -> None:
        super().__init__(edge.visitors, 8443, path, headers)
        self._edge, self._visitor, self._name = edge, visitor, name
        self._tls = edge.tls()

    async def _dial(self) -> tuple[str, socket.socket]:
        sock = self._edge.connect(visitor=self._visitor)
        sock.setblocking(False)
        return f"wss://{self._name}{self._path}", sock


@contextmanager
def edge_network(world: World) -> Iterator[Edge]:
    """The networks around an edge, without it: 172.30.N.3 is the host's then."""
    number = next(_numbers)
    inside, outside = f"172.30.{number}", f"198.18.{number}"
    with namespace("visitors") as visitors:
        yield Edge(inside, outside, visitors)


@contextmanager
def run_edge(
    world: World,
    edge: Edge,
    folder: Path,
    settings: Mapping[str, str] | None = None,
    changes: Mapping[str, str] | None = None,
) -> Iterator[Edge]:
    """Start it; nothing of it is left afterwards.

    ``settings``: of start.sh. ``changes``: lines of nginx.conf to replace, for what would take minutes.
    """
    config = (FILES / "nginx.conf").read_text()
    for old, new in (changes or {}).items():
        assert config.count(old) == 1, old
        config = config.replace(old, new)
    folder.chmod(0o755)
    files = Path(
        copytree(FILES.parent, folder / "deploy")
    )  # the tree may be in a folder that is closed to others
    (files / "edge/nginx.conf").write_text(config)
    program = Path(copy2(downloaded("nginx") / "usr/sbin/nginx", files / "edge"))
    hosts = folder / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{edge.inside}.3 aero-l2-proxy\n")
    edge.output = folder / "edge.out"
    edge.output.touch()
    os.chown(edge.output, _USER, _USER)
    config_file = str(files / "edge/nginx.conf")
    given = {"EDGE_CONFIG": config_file, "EDGE_STATE": "/run/state", "EDGE_NAMES": NAME}
    given |= {name: value.replace(str(FILES.parent), str(files)) for name, value in (settings or {}).items()}
    with ExitStack() as stack:
        where = stack.enter_context(namespace("edge"))
        _wire(edge, where, world.host)
        output = stack.enter_context(edge.output.open("ab"))
        private = ("unshare", "--mount", "--propagation", "private", "sh", "-euc", _START, "sh", str(hosts))
        edge.process = subprocess.Popen(
            where.enter(*private, str(_USER), str(files / "edge/start.sh")),
            env={"PATH": f"{program.parent}:/usr/bin:/bin", **given},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            wait_until(lambda: edge.process.poll() is not None or _listens(edge), "it listens", 30)
            assert edge.process.poll() is None, edge.log
            yield edge
        finally:
            edge.process.terminate()
            edge.process.wait(10)


def _listens(edge: Edge) -> bool:
    try:
        edge.connect().close()
    except OSError:
        return False
    return True


def _wire(edge: Edge, where: Namespace, host: Namespace) -> None:
    name = edge.inside.rpartition(".")[2]
    link(where, "inside", f"{edge.inside}.2/28", host, f"edge{name}", f"{edge.inside}.3/28")
    link(where, "outside", f"{edge.outside}.2/24", edge.visitors, f"out{name}", f"{edge.outside}.10/24")
    for visitor in range(11, 30):
        edge.visitors.run("ip", "address", "add", f"{edge.outside}.{visitor}/24", "dev", f"out{name}")
