"""Runs `aero-l2 connect` inside the test world's host namespace, as root or as an ordinary user."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.ns import Namespace
from support.output import Output
from support.proxy import AS_USER, RunAs
from support.stage import devices_of, make_tun, private_mounts
from support.wait import wait_until

PROGRAM = str(Path(__file__).resolve().parents[2] / ".venv/bin/aero-l2")


class Connect:
    """A running `aero-l2 connect`, with what it has written so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self._output = Output(process.stdout.fileno())
        self._log = Output(process.stderr.fileno())

    @property
    def output(self) -> str:
        """Its stdout."""
        return "".join(self._output.lines())

    @property
    def log(self) -> str:
        """Its stderr."""
        return "".join(self._log.lines())

    def wait_said(self, text: str, times: int = 1, timeout_s: float = 30) -> None:
        """Wait until ``text`` has been written to stderr so often."""
        wait_until(
            lambda: self.log.count(text) >= times or self.process.poll() is not None,
            f"it says {text}",
            timeout_s,
        )
        assert self.log.count(text) >= times, f"ended with {self.process.poll()}: {self.log}"

    def wait_ready(self, timeout_s: float = 30) -> None:
        """Wait until there is a tunnel."""
        self.wait_said("tunnel open", 1, timeout_s)

    def end(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 20) -> int:
        """Send it a signal; its exit status."""
        self.process.send_signal(number)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = 30) -> int:
        """Its exit status once it has ended."""
        status = self.process.wait(timeout_s)
        for output in (self._output, self._log):
            output.join(timeout_s)
        return status

    def close(self) -> None:
        """Stop what is left of it."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        for output in (self._output, self._log):
            output.join(10)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()


class Client:
    """A machine that `aero-l2 connect` runs on: a network namespace, resolv.conf and /dev/net of its own."""

    def __init__(self, where: Namespace, mounts: int) -> None:
        self.where = where
        self.mounts = mounts

    def command_line(
        self, arguments: Sequence[str], run_as: RunAs, env: Mapping[str, str] | None = None
    ) -> list[str]:
        """The command line that runs it there."""
        variables = [f"{name}={value}" for name, value in {"PATH": os.environ["PATH"], **(env or {})}.items()]
        return [
            *("nsenter", f"--net={self.where.path}", f"--mount=/proc/{self.mounts}/ns/mnt", "--wd=/", "--"),
            *(AS_USER if run_as == "user" else ()),
            *("env", "-i", *variables, PROGRAM, "connect", *arguments),
        ]

    @contextmanager
    def connect(
        self, *arguments: str, run_as: RunAs = "user", env: Mapping[str, str] | None = None
    ) -> Iterator[Connect]:
        """Start it, and stop it afterwards."""
        process = subprocess.Popen(
            self.command_line(arguments, run_as, env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        connect = Connect(process)
        try:
            yield connect
        finally:
            connect.close()

    def run(
        self,
        *arguments: str,
        run_as: RunAs = "user",
        env: Mapping[str, str] | None = None,
        stdin: str = "",
        timeout_s: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            self.command_line(arguments, run_as, env),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


@contextmanager
def client(where: Namespace, resolv_conf: Path, tun_mode: int | None = 0o666) -> Iterator[Client]:
    """A machine to run it on. tun_mode: of /dev/net/tun, None if it has none."""
    with private_mounts(resolv_conf) as mounts:
        if tun_mode is not None:
            make_tun(devices_of(mounts), tun_mode)
        yield Client(where, mounts)
