"""A Debian with systemd as its process 1, on this kernel: in namespaces, and in a control group of its own.

Its files are an overlay on the tree that ./dev made (debian_root), in memory, and gone with it. Its network
is a namespace of the tests'. It can neither load a module nor change a sysctl of the machine's.
"""

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import procfs
from support.ns import Namespace
from support.wait import wait_until

REPOSITORY = Path(__file__).resolve().parents[3]
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# 1: the group, 2: the tree, 3: where to put it together, 4: resolv.conf, 5: the package.
_BOOT = """
echo $$ >"$1/cgroup.procs"
exec setpriv --pdeathsig KILL unshare --fork --kill-child \\
  --cgroup --mount --pid --ipc --uts --propagation private sh -euc '
  mount -t tmpfs -o mode=755 files "$3"
  mkdir "$3/upper" "$3/work" "$3/root"
  mount -t overlay -o "lowerdir=$2,upperdir=$3/upper,workdir=$3/work" root "$3/root"
  cd "$3/root"
  cat "$4" >etc/resolv.conf
  cp "$5" srv/aero-l2.deb
  echo 8090f0e1d2c3b4a5968778695a4b3c2d >etc/machine-id
  mount -t proc proc proc
  mount --bind proc/sys proc/sys
  mount -o remount,bind,ro proc/sys
  mount -t sysfs -o ro sysfs sys
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  mount -t tmpfs -o mode=755,nosuid dev dev
  for node in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 666 "dev/${node%:*}" c 1 "${node#*:}"
  done
  mknod -m 666 dev/tty c 5 0
  mkdir dev/pts dev/shm dev/net
  mknod -m 666 dev/net/tun c 10 200
  mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
  ln -s pts/ptmx dev/ptmx
  ln -s /proc/self/fd dev/fd
  touch dev/console
  mount -t tmpfs -o mode=755,nosuid,nodev run run
  echo machine >etc/hostname
  ln -s /dev/null etc/systemd/system/console-getty.service
  mkdir run/old
  pivot_root . run/old
  exec chroot . sh -euc "
    umount -l /run/old
    mount --make-rshared /
    exec env -i container=test PATH=$PATH setpriv \\
      --bounding-set=-sys_module,-sys_time,-syslog,-sys_rawio,-audit_control,-audit_read,-audit_write \\
      /lib/systemd/systemd --unit=multi-user.target --log-target=journal </dev/null >/dev/console 2>&1"
' sh "$@"
"""


class Machine:
    """Runs programs in a machine as its root, beside its services."""

    def __init__(self, host: Namespace, process: subprocess.Popen[bytes], group: Path) -> None:
        self.host = host
        self.group = group
        self._process = process
        self.first = 0

    def wait_booted(self) -> None:
        """Wait until systemd has nothing left to start. Raises AssertionError with what it says instead."""
        wait_until(self._find_first, "the machine has a process 1", 20)
        wait_until(lambda: self._state() in ("running", "degraded"), "the machine has booted", 60)
        assert self._state() == "running", self.run("systemctl", "--failed", "--no-pager")

    def _find_first(self) -> bool:
        assert self._process.poll() is None, "the machine did not start"
        children = [pid for pid in procfs.descendants(self._process.pid) if procfs.command(pid)]
        found = [pid for pid in children if procfs.command(pid).startswith("/lib/systemd/systemd --unit")]
        self.first = found[0] if found else 0
        return bool(self.first)

    def _state(self) -> str:
        return self.attempt("systemctl", "is-system-running").stdout.strip()

    def attempt(
        self, *argv: str, stdin: str = "", timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a program that may fail."""
        inside = ["nsenter", f"--target={self.first}", "--all", "--root", "--wd=/", "--"]
        return subprocess.run(
            [
                *inside,
                "env",
                "-i",
                f"PATH={_PATH}",
                "DEBIAN_FRONTEND=noninteractive",
                "LC_ALL=C.UTF-8",
                *argv,
            ],
            capture_output=True,
            text=True,
            input=stdin,
            timeout=timeout_s,
            check=False,
        )

    def run(self, *argv: str, stdin: str = "", timeout_s: float = 120) -> str:
        """Run a program, return its stdout; raises AssertionError with its stderr if it fails."""
        done = self.attempt(*argv, stdin=stdin, timeout_s=timeout_s)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def path(self, inside: str) -> Path:
        """A file of the machine's, as seen from here."""
        return Path("/proc", str(self.first), "root", inside.lstrip("/"))

    def journal(self, unit: str) -> str:
        """What a unit said so far."""
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")

    def pids(self, unit: str) -> list[int]:
        """The processes of a unit, as numbered out here."""
        listed = self.group / "system.slice" / unit / "cgroup.procs"
        return [int(pid) for pid in listed.read_text().split()] if listed.exists() else []

    def main(self, unit: str) -> int:
        """The unit's main process, as numbered in there; 0 for none."""
        return int(self.run("systemctl", "show", "--property=MainPID", "--value", unit))

    def halt(self) -> None:
        """End every process of it."""
        self._process.kill()
        self._process.wait(10)


def package() -> Path:
    """The package that ./dev deb has built of this tree."""
    found = list((REPOSITORY / ".cache/deb").glob("aero-l2_*.deb"))
    assert len(found) == 1, f"{len(found)} packages in .cache/deb (./dev deb builds it)"
    return found[0]


def debian_root() -> Path:
    """The tree that ./dev made for this package."""
    roots = [path for path in (REPOSITORY / ".cache/roots").glob("*") if path.suffix != ".new"]
    assert roots, "there is no tree in .cache/roots (./dev test makes it)"
    return max(roots, key=lambda path: path.stat().st_mtime)


def _unified() -> Path:
    """Where the control groups of version 2 are."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return Path(before.split(" ")[4])
    raise AssertionError("this machine has no control groups of version 2")


def _remove_group(group: Path) -> None:
    for folder, _, _ in os.walk(group, topdown=False):
        wait_until(lambda folder=folder: _is_removed(folder), f"nobody is left in {folder}", 20)


def _is_removed(folder: str) -> bool:
    try:
        os.rmdir(folder)
    except OSError as error:
        if error.errno != errno.EBUSY:  # somebody in it has not quite ended
            raise
        return False
    return True


@contextmanager
def machine(host: Namespace, resolv_conf: Path) -> Iterator[Machine]:
    """Boot one in a network namespace, with the package in /srv, not installed; nothing is left of it."""
    group = _unified() / f"aero-l2-machine-{os.getpid()}"
    group.mkdir()
    scratch = tempfile.mkdtemp(prefix="aero-l2-machine-")
    try:
        given = [str(group), str(debian_root()), scratch, str(resolv_conf), str(package())]
        process = subprocess.Popen(host.enter("sh", "-euc", _BOOT, "sh", *given), stdin=subprocess.DEVNULL)
        booted = Machine(host, process, group)
        try:
            booted.wait_booted()
            yield booted
        finally:
            booted.halt()
    finally:
        _remove_group(group)
        shutil.rmtree(scratch)
