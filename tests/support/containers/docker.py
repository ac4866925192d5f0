"""Docker in the world of the tests: a daemon on the "host", with its bridge, and nothing beyond.

Containers reach the test's internet by the daemon's masquerading, as on any host; no packet leaves the
machine.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container

from support import addresses as at
from support import images, procfs
from support.containers import build
from support.containers.asking import get
from support.containers.engine import Daemon, docker_daemon, search_path
from support.proxy import Role, role_of
from support.tunnel import Tunnel
from support.wait import wait_until
from support.world import World

PORT = 8090
UID = 10001
BRIDGE = "172.30.0.1"
"""The daemon's own address, which containers have as their gateway."""
PROFILE = images.REPOSITORY / "deploy/seccomp-aero.json"
OPEN = {"AERO_L2_OPEN": "1", "AERO_L2_INSECURE_ALLOW_NO_AUTH": "1"}


def least_privilege() -> dict[str, Any]:
    """The flags of docs/containers.md, as the SDK has them; the profile goes as its content."""
    return {
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges", f"seccomp={PROFILE.read_text()}"],
        "read_only": True,
        "tmpfs": {"/tmp": ""},
        "devices": ["/dev/net/tun"],
    }


@dataclass
class Box:
    """A running container of the image, seen from the host."""

    world: World
    container: Container
    port: int

    @property
    def log(self) -> str:
        """Everything it wrote so far."""
        return self.container.logs().decode()

    def events(self, name: str) -> list[dict[str, Any]]:
        """The lines of its log with this event."""
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def get(self, path: str) -> tuple[int, str]:
        """One HTTP request by the published port: status and body; (0, …) while nobody answers."""
        return get(self.world.host, self.port, path)

    def tunnel(self) -> Tunnel:
        """A tunnel by the published port, to be opened by ``async with``."""
        return Tunnel(self.world.host, self.port)

    def state(self) -> dict[str, Any]:
        """What the daemon says of it now."""
        self.container.reload()
        state: dict[str, Any] = self.container.attrs["State"]
        return state

    def run(self, *command: str) -> tuple[int, str]:
        """A command inside, as its user: exit status and what it wrote."""
        done = self.container.exec_run(list(command))
        return done.exit_code, done.output.decode()

    def processes(self) -> dict[int, Role]:
        """Its processes, by their ids here, and which of the proxy's each is: all in its mounts' cgroup."""
        marked = {pid for pid in procfs.pids() if self.container.id in procfs.cgroups(pid)}
        alive = sorted((pid for pid in marked if procfs.is_alive(pid)), key=procfs.started)
        return {pid: _role(pid) for pid in alive}

    def wait_ready(self) -> None:
        """Until it accepts tunnels."""
        wait_until(lambda: self.get("/readyz")[0] == 200 or not self._runs(), "the container is ready", 60)
        assert self._runs(), f"it ended: {self.state()}\n{self.log}"

    def wait_ended(self) -> int:
        """Until it has ended; its exit status."""
        return int(self.container.wait(timeout=60)["StatusCode"])

    def _runs(self) -> bool:
        return bool(self.state()["Running"])


def _role(pid: int) -> Role:
    command, about = procfs.command(pid), procfs.status(pid)
    if "-m netns.launch" in command:
        return "launch"
    return role_of(command, about.get("Name", ""), procfs.command(int(about.get("PPid", 0))))


@dataclass
class DockerHost:
    """The daemon on the world's host, with the image in it."""

    world: World
    daemon: Daemon
    client: docker.DockerClient

    def image(self) -> Any:
        """The image under test."""
        return self.client.images.get(build.TAG)

    @contextmanager
    def box(
        self, environment: Mapping[str, str] | None = None, command: list[str] | None = None, **flags: Any
    ) -> Iterator[Box]:
        """Run a container with the documented flags, or others; it is removed afterwards."""
        options = {**least_privilege(), **flags}
        container = self.client.containers.run(
            build.TAG,
            command,
            detach=True,
            environment={**OPEN, **(environment or {})},
            ports={f"{PORT}/tcp": None},
            **{name: value for name, value in options.items() if value is not None},
        )
        try:
            yield Box(self.world, container, self._published(container))
        except AssertionError as failure:
            failure.add_note(f"--- container ---\n{container.logs().decode()}")
            raise
        finally:
            container.remove(force=True, v=True)

    def typed(self, folder: Path, script: str) -> str:
        """What a shell in ``folder`` prints for commands that call ``docker``; fails with what they said."""
        environment = {"PATH": search_path(), "DOCKER_HOST": self.daemon.url, "HOME": str(folder)}
        done = subprocess.run(
            ["sh", "-euc", script],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _published(self, container: Container) -> int:
        container.reload()
        found = container.attrs["NetworkSettings"]["Ports"].get(f"{PORT}/tcp")
        return int(found[0]["HostPort"]) if found else 0


@contextmanager
def docker_host(world: World) -> Iterator[DockerHost]:
    """Start the daemon, load the image, and end and remove all of it afterwards."""
    archive = build.built_image()
    folder = Path(tempfile.mkdtemp(prefix="aero-l2-docker-"))
    try:
        with docker_daemon(
            folder, world.host.enter(), (f"--bip={BRIDGE}/24", f"--dns={at.NAMESERVER}")
        ) as daemon:
            daemon.run("load", "--input", str(archive))
            client = docker.DockerClient(base_url=daemon.url, version="auto", timeout=120)
            try:
                yield DockerHost(world, daemon, client)
            finally:
                client.close()
    finally:
        shutil.rmtree(folder)
