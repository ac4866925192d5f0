"""What a proxy under test sees changed of its machine: resolv.conf, /dev/net and the programs on its PATH."""

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PROGRAMS = ("slirp4netns", "nft")
_TUN = os.makedev(10, 200)
_PREPARE = """
mount --bind "$1" /etc/resolv.conf
mkdir -p /dev/net
mount -t tmpfs -o mode=755 tmpfs /dev/net
shift
touch /dev/net/nothing
for program in "$@"; do mount --bind /dev/net/nothing "$program"; done
rm /dev/net/nothing
echo ready
exec cat
"""


@contextmanager
def private_mounts(resolv_conf: Path) -> Iterator[int]:
    """A mount namespace with the given resolv.conf, an empty /dev/net and none of the machine's own
    programs: a file of their own lies over each, since /dev/null's mode would be everyone's.

    Yields the process that holds it.
    """
    private = ["unshare", "--mount", "--propagation", "private"]
    command = [*private, "sh", "-euc", _PREPARE, "sh", str(resolv_conf), *map(installed, _PROGRAMS)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"ready\n"
        yield holder.pid
    finally:
        holder.stdin.close()
        holder.wait(10)
        holder.stdout.close()


@contextmanager
def private_programs() -> Iterator[Path]:
    """A directory that every user can read, with copies of the programs that the proxy needs."""
    directory = Path(tempfile.mkdtemp(prefix="aero-l2-test-path-"))
    try:
        directory.chmod(0o755)
        for name in _PROGRAMS:
            copy_program(name, directory)
        yield directory
    finally:
        shutil.rmtree(directory)


def installed(name: str) -> str:
    """The file of one of the machine's programs."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    assert found, f"{name} is not installed (./dev setup)"
    return os.path.realpath(found)


def copy_program(name: str, directory: Path) -> None:
    """Put a program into a proxy's PATH, in place of what is there: never into what a link there leads to,
    whose mode and content would become the program's."""
    (directory / name).unlink(missing_ok=True)
    shutil.copy(installed(name), directory / name)


def devices_of(mounts: int) -> Path:
    """/dev/net of the mount namespace that process ``mounts`` holds, as seen from the machine."""
    return Path("/proc", str(mounts), "root", "dev/net")


def make_tun(devices: Path, mode: int) -> None:
    """Make the device node ``tun`` in a proxy's /dev/net."""
    os.mknod(devices / "tun", stat.S_IFCHR, _TUN)
    (devices / "tun").chmod(mode)


def delay_nat(programs: Path) -> Path:
    """Have the NAT processes of a proxy begin only once there is a file; returns which."""
    program, go = programs / "slirp4netns", programs / "go"
    program.rename(programs / "later")
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *--ready-fd*) until [ -e {go} ]; do /bin/sleep 0.05; done ;; esac\n'
        f'exec {programs}/later "$@"\n'
    )
    program.chmod(0o755)
    return go
