"""Rootless podman: Debian's, as an ordinary user that exists in the test only, on the world's host.

One process holds a mount and a PID namespace. The mount namespace has a user with subordinate ids, a
resolv.conf and a /dev/net/tun of its own; the PID namespace ends with that process, and with it whatever
podman left running. There is no systemd and no session here: what podman would ask those for is in a
configuration of its own.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from support import procfs
from support.containers.asking import get
from support.containers.build import TAG, built_image
from support.proxy import Role, role_of
from support.stage import devices_of, make_tun
from support.tunnel import Tunnel
from support.wait import wait_until
from support.world import World

IMAGE = f"localhost/{TAG}"
PORT = 8090
OPEN = ("--env", "AERO_L2_OPEN=1", "--env", "AERO_L2_INSECURE_ALLOW_NO_AUTH=1")
USER, USER_ID = "aero-podman", 61301
SUBORDINATE, SUBORDINATES = 6130000, 65536
_CONFIGURATION = """\
[containers]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{folder}/home/storage"
runroot = "{folder}/run/storage"
"""
# A hierarchy of cgroup version 2 beside those of version 1 is refused by crun.
_PREPARE = """
for name in passwd group subuid subgid resolv.conf; do mount --bind "$1/etc/$name" "/etc/$name"; done
mkdir -p /dev/net
mount -t tmpfs -o mode=755 tmpfs /dev/net
! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified
mount --make-rshared /
echo ready
exec cat
"""
_OWN = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")
_AS_USER = (
    "setpriv", f"--reuid={USER_ID}", f"--regid={USER_ID}", "--clear-groups", "--inh-caps=-all", "--"
)  # fmt: skip


@dataclass(frozen=True)
class Podman:
    """Podman of the test's user. ``holder``: the first process of its PID namespace."""

    world: World
    folder: Path
    holder: int

    @property
    def home(self) -> Path:
        """The user's folder, where commands start."""
        return self.folder / "home"

    def command(self, *argv: str) -> list[str]:
        """The command line that runs ``argv`` as the user."""
        variables = {
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.home),
            "USER": USER,
            "XDG_RUNTIME_DIR": str(self.folder / "run"),
            "TMPDIR": str(self.folder / "tmp"),
            "CONTAINERS_CONF": str(self.folder / "etc/containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "etc/storage.conf"),
            "DISABLE_HC_SYSTEMD": "true",
        }
        enter = ("nsenter", f"--net={self.world.host.path}", "--target", str(self.holder), "--mount", "--pid")
        words = (f"{name}={value}" for name, value in variables.items())
        return [*enter, f"--wdns={self.home}", "--", *_AS_USER, "env", "-i", *words, *argv]

    def attempt(
        self, *arguments: str, stdin: IO[bytes] | int = subprocess.DEVNULL, env: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """``podman`` with these arguments, which may fail."""
        command = self.command(*env, "podman", *arguments)
        return subprocess.run(command, stdin=stdin, capture_output=True, text=True, timeout=300, check=False)

    def run(self, *arguments: str, stdin: IO[bytes] | int = subprocess.DEVNULL) -> str:
        """The same, its standard output; fails with what it said."""
        done = self.attempt(*arguments, stdin=stdin)
        said = f"podman {shlex.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, said
        return done.stdout

    def give(self, name: str, content: str) -> Path:
        """A file in the user's home, of the user."""
        path = self.home / name
        path.write_text(content)
        shutil.chown(path, USER_ID, USER_ID)
        return path

    @contextmanager
    def box(self, *arguments: str) -> Iterator[Box]:
        """``podman run --detach`` with these arguments; the container is removed afterwards."""
        with self.removed(self.run("run", "--detach", *arguments).strip()) as box:
            yield box

    @contextmanager
    def removed(self, name: str) -> Iterator[Box]:
        """A container that runs, to be removed afterwards."""
        box = Box(self, name)
        try:
            yield box
        except AssertionError as failure:
            failure.add_note(f"--- container ---\n{box.log}")
            raise
        finally:
            self.run("rm", "--force", "--time", "0", "--volumes", name)


@dataclass(frozen=True)
class Box:
    """A container of the image, seen from the host. ``name``: or its id."""

    podman: Podman
    name: str

    @property
    def world(self) -> World:
        """Whose host it is on."""
        return self.podman.world

    @property
    def log(self) -> str:
        """Everything it wrote so far."""
        done = self.podman.attempt("logs", self.name)
        return done.stdout + done.stderr

    def events(self, name: str) -> list[dict[str, Any]]:
        """The lines of its log with this event."""
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == name]  # those of the audit have none

    def inspect(self) -> dict[str, Any]:
        """What podman knows of it."""
        return dict(json.loads(self.podman.run("container", "inspect", self.name))[0])

    @property
    def port(self) -> int:
        """Where the tunnels' port is published."""
        (binding,) = self.inspect()["NetworkSettings"]["Ports"][f"{PORT}/tcp"]
        return int(binding["HostPort"])

    def get(self, path: str) -> tuple[int, str]:
        """One HTTP request by the published port: status and body; (0, …) while nobody answers."""
        return get(self.world.host, self.port, path)

    def tunnel(self, headers: Mapping[str, str] | None = None) -> Tunnel:
        """A tunnel by the published port, from the host's loopback, to be opened by ``async with``."""
        return Tunnel(self.world.host, self.port, headers=headers)

    def exec(self, *command: str) -> tuple[int, str]:
        """A command inside, as its user: exit status and what it wrote."""
        done = self.podman.attempt("exec", self.name, *command)
        return done.returncode, done.stdout + done.stderr

    def wait_ready(self) -> None:
        """Until it accepts tunnels."""
        wait_until(lambda: self.get("/readyz")[0] == 200 or not self._runs(), "the container is ready", 60)
        assert self._runs(), f"it ended: {self.inspect()['State']}\n{self.log}"

    def wait_listening(self) -> None:
        """Until it takes connections and tunnels, by its log."""
        wait_until(lambda: self.events("ready") or not self._runs(), "the container is ready", 60)
        assert self._runs(), f"it ended: {self.inspect()['State']}\n{self.log}"

    def _runs(self) -> bool:
        return bool(self.inspect()["State"]["Running"])

    def processes(self) -> dict[int, Role]:
        """Its processes, by their ids on the machine, and which of the proxy's each is."""
        inside = str(self.inspect()["State"]["Pid"])
        theirs = procfs.descendants(self.podman.holder)
        first = next(pid for pid in theirs if procfs.status(pid).get("NSpid", "").split()[1:2] == [inside])
        return {pid: _role(pid) for pid in (first, *procfs.descendants(first))}


def _role(pid: int) -> Role:
    command, about = procfs.command(pid), procfs.status(pid)
    if "-m netns.launch" in command:
        return "launch"
    return role_of(command, about.get("Name", ""), procfs.command(int(about.get("PPid", 0))))


def _write_etc(etc: Path, resolv_conf: Path) -> None:
    """The machine's files with one more user, who has subordinate ids; and podman's configuration."""
    etc.mkdir()
    added = {
        "passwd": f"{USER}:x:{USER_ID}:{USER_ID}::{etc.parent / 'home'}:/bin/sh\n",
        "group": f"{USER}:x:{USER_ID}:\n",
        "subuid": f"{USER}:{SUBORDINATE}:{SUBORDINATES}\n",
        "subgid": f"{USER}:{SUBORDINATE}:{SUBORDINATES}\n",
    }
    for name, line in added.items():
        (etc / name).write_text((Path("/etc") / name).read_text() + line)
    (etc / "resolv.conf").write_text(resolv_conf.read_text())
    (etc / "containers.conf").write_text(_CONFIGURATION)
    (etc / "storage.conf").write_text(_STORAGE.format(folder=etc.parent))


@contextmanager
def rootless_podman(world: World) -> Iterator[Podman]:
    """Podman of a user of its own, with the image; no process, mount or file of it is left afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="aero-l2-"))
    try:
        folder.chmod(0o755)
        _write_etc(folder / "etc", world.resolv_conf)
        for name in ("home", "run", "tmp"):
            (folder / name).mkdir(mode=0o700)
            shutil.chown(folder / name, USER_ID, USER_ID)
        with _held(folder) as holder:
            make_tun(devices_of(holder), 0o666)
            podman = Podman(world, folder, holder)
            with built_image().open("rb") as archive:
                podman.run("load", "--quiet", stdin=archive)
            yield podman
    finally:
        shutil.rmtree(folder)


@contextmanager
def _held(folder: Path) -> Iterator[int]:
    """The namespaces' first process, by its id on the machine."""
    command = [*_OWN, "sh", "-euc", _PREPARE, "sh", str(folder)]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert started.stdin is not None
    assert started.stdout is not None
    try:
        assert started.stdout.readline() == b"ready\n"
        (holder,) = procfs.descendants(started.pid)
        yield holder
    finally:
        started.stdin.close()
        started.wait(30)
        started.stdout.close()
