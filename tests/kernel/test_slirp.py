"""The NAT driver on the real slirp4netns, and on programs that are not what they should be."""

import contextlib
import os
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.segment import segment
from support.wait import wait_until

from netns.spec import SegmentSpec
from slirp.errors import NatMissing, NatStartError, NatUnsuitable
from slirp.features import probe
from slirp.slirp4netns import Slirp4netns

TESTS = str(Path(__file__).resolve().parents[1])
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Nat:
    """A started NAT process and the ends of its pipes that the driver's user keeps."""

    pid: int
    exit_pipe: int
    ready: int
    stderr: int

    def status(self) -> dict[str, str]:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@contextlib.contextmanager
def started(driver: Slirp4netns, *, host_loopback: bool = False) -> Iterator[Nat]:
    """Start it in a fresh tunnel's namespace whose tap1 is free."""
    with segment(SegmentSpec(), keep_nat=False) as made:
        pipes = [os.pipe() for _ in range(3)]
        (exit_read, exit_write), (ready_read, ready_write), (stderr_read, stderr_write) = pipes
        pid = driver.start(
            netns=made.interior.netns,
            tap="tap1",
            exit_fd=exit_read,
            ready_fd=ready_write,
            stderr_fd=stderr_write,
            host_loopback=host_loopback,
            max_files=300,
        )
        for fd in (exit_read, ready_write, stderr_write):
            os.close(fd)
        try:
            yield Nat(pid, exit_write, ready_read, stderr_read)
        finally:
            for fd in (exit_write, ready_read, stderr_read):
                with contextlib.suppress(OSError):
                    os.close(fd)
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def ready(nat: Nat) -> bytes:
    assert select.select([nat.ready], [], [], 10)[0], "neither ready nor dead within 10 s"
    return os.read(nat.ready, 1)


def test_process_becomes_ready_inside_its_sandbox() -> None:
    # The sandbox gets a mount namespace of its own to work on: as root it would take the machine's.
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "slave", sys.executable, __file__],
        env={"PYTHONPATH": TESTS, "PATH": PATH},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    status = dict(line.split("=") for line in done.stdout.split())
    assert status == {
        "ready": "1",
        "CapEff": "0000000000000400",
        "CapBnd": "0000000000000400",
        "NoNewPrivs": "1",
        "Seccomp": "2",
        "files": "300",
        "ended": "True",
    }


def play() -> None:
    """What the test above runs: start, look, close the exit pipe, see it end."""
    with started(Slirp4netns(PATH)) as nat:
        print(f"ready={ready(nat).decode()}")
        status = nat.status()
        for name in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp"):
            print(f"{name}={status[name]}")
        limits = Path(f"/proc/{nat.pid}/limits").read_text()
        line = next(line for line in limits.splitlines() if line.startswith("Max open files"))
        print(f"files={line.split()[3]}")
        os.close(nat.exit_pipe)
        pidfd = os.pidfd_open(nat.pid)
        print(f"ended={bool(select.select([pidfd], [], [], 5)[0])}")
        os.waitpid(nat.pid, 0)


def script(folder: Path, text: str) -> Path:
    program = folder / "slirp4netns"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def test_missing_program_is_named_with_its_package(tmp_path: Path) -> None:
    with pytest.raises(NatMissing, match=r"slirp4netns is not installed.*package slirp4netns"):
        Slirp4netns(str(tmp_path)).prepare()


def test_program_that_appears_later_is_found(tmp_path: Path) -> None:
    driver = Slirp4netns(str(tmp_path))
    with pytest.raises(NatMissing):
        driver.prepare()
    (tmp_path / "slirp4netns").symlink_to("/usr/bin/slirp4netns")
    driver.prepare()


def test_program_without_what_isolation_needs_is_refused(tmp_path: Path) -> None:
    program = script(tmp_path, "echo slirp4netns version 0.3.0; echo --exit-fd --ready-fd --netns-type")
    with pytest.raises(NatUnsuitable, match=r"0\.3\.0.*--enable-sandbox"):
        probe(str(program))


def test_program_that_cannot_be_executed_is_an_error_for_people(tmp_path: Path) -> None:
    program = tmp_path / "slirp4netns"
    program.write_bytes(b"\x7fELF nonsense")
    program.chmod(0o755)
    with pytest.raises(NatStartError, match="cannot run"):
        Slirp4netns(str(tmp_path)).prepare()


def test_features_of_the_installed_program() -> None:
    features = probe("/usr/bin/slirp4netns")
    assert features.version[0].isdigit()
    assert "--enable-seccomp" in features.options


def test_what_a_dying_program_says_can_be_read(tmp_path: Path) -> None:
    usage = subprocess.run(["/usr/bin/slirp4netns", "--help"], capture_output=True, text=True).stdout
    script(
        tmp_path, f"case $1 in --version|--help) cat <<'E'\n{usage}\nE\n;; *) echo no luck >&2; exit 3;; esac"
    )
    with started(Slirp4netns(str(tmp_path))) as nat:
        assert ready(nat) == b""
        assert os.read(nat.stderr, 100) == b"no luck\n"


def test_nothing_is_left_when_the_parent_is_killed() -> None:
    child = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "slave", sys.executable, __file__, "wait"],
        env={"PYTHONPATH": TESTS, "PATH": PATH},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    pid = int(child.stdout.readline())
    child.kill()
    child.wait()
    wait_until(lambda: not Path(f"/proc/{pid}/exe").exists(), "the NAT process ended with its parent", 10)


def wait_to_be_killed() -> None:
    with started(Slirp4netns(PATH)) as nat:
        ready(nat)
        print(nat.pid, flush=True)
        signal.pause()


if __name__ == "__main__":
    if sys.argv[1:] == ["wait"]:
        wait_to_be_killed()
    else:
        play()
