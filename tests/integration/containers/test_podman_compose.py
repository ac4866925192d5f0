"""compose.yaml under podman-compose 1.0.3, as an ordinary user: proxy and edge find each other."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copy2, copytree, ignore_patterns

import pytest
from support import addresses as at
from support import images
from support.containers import build, edgeimage
from support.containers.podman import USER_ID, Podman, rootless_podman
from support.edge import EdgeTunnel
from support.ns import Namespace
from support.rawguest import RawGuest
from support.tunnel import RefusedError
from support.wait import until, wait_until
from support.world import World

pytestmark = pytest.mark.slow

HERE = "localhost:8443"
SERVICES = ("aero-l2-edge", "aero-l2-proxy")  # it knows no profiles
FOLDER = "lab"


@dataclass
class Project:
    """The project in the user's home. ``visitors``: the machine itself, which alone it is published to."""

    podman: Podman
    visitors: Namespace

    def compose(self, *arguments: str) -> str:
        """``podman-compose`` with these arguments; what it wrote."""
        variables = (
            "EDGE_HTTP_PORT=18080",  # the world's host serves something at 8080
            f"IMAGE_PROXY=localhost/{build.TAG}",
            f"IMAGE_EDGE=localhost/{edgeimage.TAG}",
        )
        folder = str(self.podman.home / FOLDER)
        command = self.podman.command("env", "-C", folder, *variables, "podman-compose", *arguments)
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def read(self, service: str, path: str) -> str:
        """A file in a service's container."""
        return self.podman.run("exec", f"{FOLDER}_{service}_1", "cat", path)

    def log(self, service: str) -> str:
        """What a service wrote so far."""
        done = self.podman.attempt("logs", f"{FOLDER}_{service}_1")
        return done.stdout + done.stderr

    def tls(self) -> ssl.SSLContext:
        """What trusts the certificate that the edge made."""
        return ssl.create_default_context(
            cadata=self.read("aero-l2-edge", "/var/lib/aero-edge/fullchain.pem")
        )

    def connect(self, port: int = 8443, visitor: int = 0) -> socket.socket:
        """A TCP connection of the machine itself."""
        sock = self.visitors.connect(at.LOOPBACK, port)
        sock.settimeout(15)
        return sock

    def tunnel(self, key: str, **headers: str) -> EdgeTunnel:
        """A tunnel with the API key, to be opened by ``async with``."""
        offered = {"Origin": f"https://{HERE}", "Sec-WebSocket-Protocol": f"aero-l2-token.{key}", **headers}
        return EdgeTunnel(self, 0, "/l2", offered, HERE)


@pytest.fixture(scope="module")
def project(world: World) -> Iterator[Project]:
    with rootless_podman(world) as podman:
        with edgeimage.built_image().open("rb") as archive:
            podman.run("load", "--quiet", stdin=archive)
        _check_out(podman.home / FOLDER)
        made = Project(podman, world.host)
        made.compose("up", "-d", "--no-build", *SERVICES)
        wait_until(lambda: '"event": "ready"' in made.log("aero-l2-proxy"), "the proxy is ready", 60)
        wait_until(lambda: "TLS on port 8443" in made.log("aero-l2-edge"), "the edge serves", 60)
        yield made


def _check_out(folder: Path) -> None:
    folder.mkdir()
    copy2(images.REPOSITORY / "compose.yaml", folder)
    copytree(images.REPOSITORY / "deploy", folder / "deploy", ignore=ignore_patterns(".env"))
    (folder / "deploy/.env").write_text(f"AERO_L2_DNS_SERVERS={at.NAMESERVER}\n")
    subprocess.run(["chown", "-R", f"{USER_ID}:{USER_ID}", str(folder)], check=True)


async def test_tunnel_with_the_key_works_and_outlives_a_reload_of_the_edge(project: Project) -> None:
    key = project.read("aero-l2-proxy", "/var/lib/aero-l2/api-key").strip()
    with pytest.raises(RefusedError, match="401"):
        async with project.tunnel("no-key"):
            pass
    async with project.tunnel(key, **{"X-Forwarded-For": "9.9.9.9", "Forwarded": "for=9.9.9.9"}) as tunnel:
        guest = RawGuest(tunnel)
        assert (await guest.dhcp())["address"] == at.GUEST
        project.podman.run("kill", "--signal", "HUP", f"{FOLDER}_aero-l2-edge_1")
        async with project.tunnel(key) as newer:
            await newer.ping(b"after the reload")
        assert (await guest.resolve("web.example.test")).ancount == 1
        assert await guest.try_tcp(at.WEB, at.HTTP_PORT) == "answered"
        log = project.log("aero-l2-proxy")
        assert '"event": "tunnel opened"' in log
        assert "9.9.9.9" not in log
        project.compose("down", "-v", "-t", "20")
        await until(lambda: not tunnel.is_open, "the tunnel is closed")
    assert (tunnel.close_code, tunnel.close_reason) == (1001, "shutting down")
    assert project.podman.run("ps", "--all", "--quiet") == ""
    assert project.podman.run("volume", "ls", "--quiet") == ""
