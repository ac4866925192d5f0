"""Runs `aero-l2 doctor` on the test world's host, whose prerequisites a test takes away.

As the proxy under test (`support.proxy`): a mount namespace, /dev/net and programs of its own.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import procfs
from support.proxy import AS_USER, RunAs
from support.stage import devices_of, make_tun, private_mounts, private_programs
from support.world import World

_ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = str(_ROOT / ".venv/bin/aero-l2")
OPEN = {"AERO_L2_OPEN": "1", "AERO_L2_INSECURE_ALLOW_NO_AUTH": "1"}
_TIMEOUT_S = 120


@dataclass(frozen=True)
class Examined:
    """What a run came to."""

    status: int
    said: dict[str, Any]
    stderr: str

    def checks(self, *statuses: str) -> list[dict[str, Any]]:
        """Its findings of these statuses."""
        return [one for one in self.said["checks"] if one["status"] in statuses]

    def of(self, check: str) -> list[dict[str, Any]]:
        """Its findings about one thing."""
        return [one for one in self.said["checks"] if one["check"] == check]


@dataclass
class Clinic:
    """A host to be crippled. programs: the only place where it finds programs. devices: its /dev/net."""

    world: World
    run_as: RunAs
    programs: Path
    devices: Path
    mounts: int

    def in_mounts(self, script: str, *arguments: str) -> None:
        """Run a shell script in the mount namespace that the doctor is going to see."""
        command = [
            "nsenter",
            f"--mount=/proc/{self.mounts}/ns/mnt",
            "--",
            "sh",
            "-euc",
            script,
            "sh",
            *arguments,
        ]
        subprocess.run(command, check=True, timeout=30)

    def command(
        self,
        *options: str,
        env: Mapping[str, str] | None = None,
        outer: Sequence[str] = (),
        inner: Sequence[str] = (),
    ) -> list[str]:
        """`outer`: a command in front of it that runs as root; `inner`: as whoever runs the doctor."""
        settings = {"PATH": str(self.programs), **OPEN, **(env or {})}
        return [
            *(
                "nsenter",
                f"--net={self.world.host.path}",
                f"--mount=/proc/{self.mounts}/ns/mnt",
                "--wd=/",
                "--",
            ),
            *outer,
            *(AS_USER if self.run_as == "user" else ()),
            *inner,
            *("env", "-i", *(f"{name}={value}" for name, value in settings.items())),
            *(_PROGRAM, "doctor", *options),
        ]

    def examine(self, *options: str, **how: Any) -> Examined:
        """Run it with --json."""
        given = () if "--bind" in options else ("--bind", "127.0.0.1:0")
        done = subprocess.run(
            self.command("--json", *given, *options, **how),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        assert done.stdout, f"status {done.returncode}: {done.stderr}"
        return Examined(done.returncode, json.loads(done.stdout), done.stderr)

    def left_behind(self) -> list[str]:
        """Processes of a doctor that are still there."""
        ours = (str(self.programs), "aero_l2.doctor", f"{_PROGRAM} doctor")
        commands = [procfs.command(pid) for pid in procfs.pids()]
        return [command for command in commands if any(word in command for word in ours)]

    def mounted(self) -> str:
        """What is mounted there."""
        return Path(f"/proc/{self.mounts}/mountinfo").read_text()


def python(script: str) -> tuple[str, str]:
    """The beginning of a command that runs a script of tests/support."""
    return sys.executable, str(Path(__file__).with_name(script))


@contextmanager
def clinic(world: World, run_as: RunAs) -> Iterator[Clinic]:
    """A healthy host; /dev/net/tun as in `run_proxy`."""
    with private_mounts(world.resolv_conf) as mounts, private_programs() as programs:
        devices = devices_of(mounts)
        make_tun(devices, 0o600 if run_as == "root" else 0o666)
        yield Clinic(world, run_as, programs, devices, mounts)
