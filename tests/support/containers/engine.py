"""A Docker daemon of the test's own, from Debian's packages, unpacked and never installed.

It lives in mount and PID namespaces of its own: when it ends, or is killed, so has everything it started and
mounted. What it would write below /run is on a tmpfs of its own; its /dev/net/tun is open to all, as udev
makes it on Debian. Its data is in the folder it is given; its cgroups have a parent of their own, which is
removed.
"""

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support import images
from support.wait import wait_until

_PACKAGES = ("docker.io", "containerd", "runc")
_PROGRAMS = ("usr/bin", "usr/sbin")
_CGROUPS = Path("/sys/fs/cgroup")
# The first process of the PID namespace adopts what loses its parent, and reaps it.
_INIT = """
resolv=$(readlink -m /etc/resolv.conf) && nameservers=$(cat "$resolv")
mount -t tmpfs -o mode=0755 aero-l2-test /run
mount -t tmpfs -o mode=0755 aero-l2-test /dev/net && mknod -m 0666 /dev/net/tun c 10 200
[ -e "$resolv" ] || { mkdir -p "${resolv%/*}" && printf '%s\\n' "$nameservers" >"$resolv"; }
"$@" &
daemon=$!
trap 'kill -TERM $daemon' TERM
while kill -0 $daemon 2>/dev/null; do wait; done
"""


def search_path() -> str:
    """PATH with the engine's programs in front."""
    trees = [images.downloaded(package) for package in _PACKAGES]
    folders = [str(tree / folder) for tree in trees for folder in _PROGRAMS if (tree / folder).is_dir()]
    return ":".join([*folders, "/usr/sbin", "/usr/bin", "/sbin", "/bin"])


@dataclass(frozen=True)
class Daemon:
    """A daemon that answers on a socket."""

    socket: Path
    log: Path
    pid: int

    @property
    def url(self) -> str:
        """As DOCKER_HOST takes it."""
        return f"unix://{self.socket}"

    def run(
        self, *arguments: str, environment: Mapping[str, str] | None = None, timeout_s: float = 600
    ) -> str:
        """The client ``docker`` with these arguments; its standard output. Fails with what it said."""
        variables = {"PATH": search_path(), "DOCKER_HOST": self.url, "HOME": str(self.socket.parent)}
        done = subprocess.run(
            ["docker", *arguments],
            env={**variables, **(environment or {})},
            executable=str(images.downloaded("docker.io") / "usr/bin/docker"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        said = f"docker {shlex.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, f"{said}\n--- dockerd ---\n{self.log.read_text()[-8000:]}"
        return done.stdout


@contextmanager
def docker_daemon(folder: Path, enter: Sequence[str] = (), options: Sequence[str] = ()) -> Iterator[Daemon]:
    """Start a daemon whose data is in ``folder`` and end it, with every container that is left.

    ``enter``: the command line that leads into the network namespace it is to live in, none for this one.
    """
    cgroup = f"aero-l2-test-{os.getpid()}-{folder.name}"
    for name in ("data", "exec"):
        (folder / name).mkdir(exist_ok=True)
    socket, log = folder / "docker.sock", folder / "dockerd.log"
    command = [
        *("dockerd", "--host", f"unix://{socket}", "--pidfile", str(folder / "docker.pid")),
        *("--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")),
        *("--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", cgroup),
        *("--config-file", str(folder / "none.json"), *options),
    ]
    (folder / "none.json").write_text("{}")
    own = (
        *("setpriv", "--pdeathsig", "KILL"),  # should the test be killed
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *("--propagation", "private"),
    )
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*enter, *own, "sh", "-c", _INIT, "sh", *command],
            env={"PATH": search_path(), "HOME": str(folder), "TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,
        )
    daemon = Daemon(socket, log, process.pid)
    try:
        wait_until(lambda: _answers(daemon) or process.poll() is not None, "dockerd answers", 60)
        assert process.poll() is None, f"dockerd ended:\n{log.read_text()[-8000:]}"
        yield daemon
    finally:
        _end(process)
        _remove_cgroups(cgroup)


def _answers(daemon: Daemon) -> bool:
    if not daemon.socket.exists():
        return False
    try:
        daemon.run("version")
    except AssertionError:
        return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the first process in the daemon's PID namespace, the child of unshare(1); then SIGKILL."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:
        for child in children.read_text().split():
            os.kill(int(child), signal.SIGTERM)
        process.wait(30)
    except (OSError, subprocess.TimeoutExpired):
        process.kill()  # its child goes with it, and the namespace with that
        process.wait(10)


def _remove_cgroups(name: str) -> None:
    """Of every hierarchy: empty by now, the innermost first."""
    for top in (*_CGROUPS.glob(f"*/{name}"), *_CGROUPS.glob(name)):
        for folder, _, _ in os.walk(top, topdown=False):
            wait_until(lambda folder=folder: _removed(Path(folder)), f"{folder} is left")


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
