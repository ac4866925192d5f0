"""compose.yaml as somebody has it who has checked the tree out, brought up by Debian's docker-compose."""

import os
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copy2, copytree, ignore_patterns

from support import addresses as at
from support import images
from support.containers import build, edgeimage
from support.containers.docker import DockerHost
from support.containers.engine import search_path
from support.edge import ORIGIN, EdgeTunnel, cookie
from support.ns import Namespace
from support.wait import wait_until
from support.world import World

HTTPS = 8443
STARTED = ("aero-l2-first-start", "aero-l2-proxy", "aero-l2-edge")


@dataclass
class Stack:
    """The project in a folder of its own. ``name``: what clients ask for; ``visitors``: where
    they are; ``address``: whom they connect to."""

    world: World
    host: DockerHost
    folder: Path
    name: str = f"localhost:{HTTPS}"
    visitors: Namespace = field(init=False)
    address: str = at.HOST_PRIVATE

    def __post_init__(self) -> None:
        self.visitors = self.world.other

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``docker-compose`` with these arguments, which may fail."""
        variables = {
            "PATH": search_path(),
            "HOME": str(self.folder),
            "DOCKER_HOST": self.host.daemon.url,
            "IMAGE_PROXY": build.TAG,
            "IMAGE_EDGE": edgeimage.TAG,
            "EDGE_HTTP_PORT": "18080",  # the world's host serves something at 8080
        }
        site = ("--env-file", "deploy/.env") if (self.folder / "deploy/.env").exists() else ()
        command = ["docker-compose", "--ansi", "never", *site, *arguments]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
        )

    def compose(self, *arguments: str) -> str:
        """The same, its standard output; fails with what it said, and what the services did."""
        done = self.attempt(*arguments)
        logs = self.attempt("logs").stdout if done.returncode else ""
        said = f"docker-compose {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}{logs}"
        assert done.returncode == 0, said
        return done.stdout

    def up(self) -> None:
        """``up -d --force-recreate``, and wait until the proxy makes tunnels and the edge serves."""
        self.compose("up", "-d", "--no-build", "--force-recreate")
        wait_until(lambda: "tunnels can be made" in self.logs() or self._healthy(), "the edge serves", 60)
        ready = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9190/readyz').status)"
        python = ("exec", "-T", "aero-l2-proxy", "/opt/aero-l2/bin/python", "-c", ready)
        try:
            wait_until(lambda: self.attempt(*python).stdout.strip() == "200", "the proxy is ready", 30)
        except AssertionError as failure:
            asked = self.attempt(*python)
            failure.add_note(f"{asked.stdout}{asked.stderr}\n{self.logs()}{self.attempt('ps').stdout}")
            raise

    def _healthy(self) -> bool:
        try:
            with self.tls().wrap_socket(self.connect(), server_hostname=self.address) as connection:
                connection.sendall(f"GET /healthz HTTP/1.0\r\nHost: {self.name}\r\n\r\n".encode())
                return connection.recv(100).startswith(b"HTTP/1.1 200 ")
        except (OSError, AssertionError):
            return False

    def logs(self) -> str:
        """What all services wrote so far."""
        return self.compose("logs", "--no-color")

    def tls(self) -> ssl.SSLContext:
        """What trusts the certificate that the edge made."""
        made = self.compose("exec", "-T", "aero-l2-edge", "cat", "/var/lib/aero-edge/fullchain.pem")
        context = ssl.create_default_context(cadata=made)
        context.check_hostname = False  # it was made at the first start, before the site had a name
        return context

    def connect(self, port: int = HTTPS, visitor: int = 0) -> socket.socket:
        """A TCP connection to the published port."""
        sock = self.visitors.connect(self.address, port)
        sock.settimeout(15)
        return sock

    def tunnel(
        self, sid: str | None = "alice", headers: Mapping[str, str] | None = None, origin: str = ORIGIN
    ) -> EdgeTunnel:
        """A tunnel with the gateway's cookie, to be opened by ``async with``."""
        credentials = cookie(sid) if sid is not None else {}
        return EdgeTunnel(self, 0, "/l2", {"Origin": origin, **credentials, **(headers or {})}, self.name)


@contextmanager
def stack(host: DockerHost, folder: Path) -> Iterator[Stack]:
    """The project, not started; it is taken down afterwards, volumes and all."""
    host.daemon.run("load", "--input", str(edgeimage.built_image()))
    folder.chmod(0o755)
    copy2(images.REPOSITORY / "compose.yaml", folder)
    copytree(images.REPOSITORY / "deploy", folder / "deploy", ignore=ignore_patterns(".env"))
    os.chmod(folder / "deploy", 0o755)
    made = Stack(host.world, host, folder)
    try:
        yield made
    finally:
        made.compose("down", "-v", "--remove-orphans")
