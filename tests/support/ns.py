"""Network namespaces of the tests' own, without a name: each is held by a process and entered by its pid.

The thread that runs pytest never changes its namespace: Python code runs inside on a thread that ends
afterwards, programs through nsenter(1). The holder ends with pytest, even when pytest is killed (its stdin
closes).
"""

import ctypes
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

_T = TypeVar("_T")
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def setns(fd: int, kind: int = _CLONE_NEWNET) -> None:
    """setns(2) for Python 3.11: moves the calling thread only. Raises OSError."""
    if _libc.setns(fd, kind) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"setns: {os.strerror(error)}")


class Namespace:
    """A network namespace that lives as long as the process ``pid``."""

    def __init__(self, name: str, pid: int) -> None:
        self.name = name
        self.pid = pid

    @property
    def path(self) -> Path:
        """The file that stands for the namespace (namespaces(7))."""
        return Path(f"/proc/{self.pid}/ns/net")

    def enter(self, *argv: str) -> list[str]:
        """The command line that runs ``argv`` inside."""
        return ["nsenter", f"--net={self.path}", "--", *argv]

    def run(self, *argv: str, **options: Any) -> str:
        """Run a program inside, return its stdout; raises AssertionError with its stderr if it fails."""
        done = subprocess.run(self.enter(*argv), capture_output=True, text=True, timeout=60, **options)
        assert done.returncode == 0, f"{self.name}: {' '.join(argv)}: {done.returncode}: {done.stderr}"
        return str(done.stdout)

    def call(self, function: Callable[[], _T]) -> _T:
        """Run ``function`` on a new thread inside; what it returns (a socket, say) keeps belonging there."""
        result: list[_T] = []
        failure: list[BaseException] = []

        def inside() -> None:
            try:
                with self.path.open("rb") as file:
                    setns(file.fileno())
                result.append(function())
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=inside, name=f"in-{self.name}")
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return result[0]

    def open_socket(
        self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, proto: int = 0
    ) -> socket.socket:
        """A socket of this namespace, usable from any thread."""
        return self.call(lambda: socket.socket(family, kind, proto))

    def connect(self, host: str, port: int, timeout_s: float = 10.0) -> socket.socket:
        """A connected TCP socket of this namespace, non-blocking, as asyncio and websockets take it."""
        connection = self.open_socket()
        connection.settimeout(timeout_s)
        try:
            connection.connect((host, port))
        except BaseException:
            connection.close()
            raise
        connection.setblocking(False)
        return connection


@contextmanager
def namespace(name: str) -> Iterator[Namespace]:
    """Make a namespace with its loopback up; it is gone afterwards (unless a process of the test lingers in
    it)."""
    holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        holder.stdin.write(b"ready\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == b"ready\n", "unshare --net failed (the tests need root)"
        made = Namespace(name, holder.pid)
        made.run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        holder.stdin.close()
        holder.wait(10)
        holder.stdout.close()


def link(a: Namespace, a_name: str, a_address: str, b: Namespace, b_name: str, b_address: str) -> None:
    """Join two namespaces by a veth pair and give each end its address (with prefix length).

    Returns when both carry frames: opening their queues can take the kernel a second, and it loses what comes
    before.
    """
    a.run("ip", "link", "add", "dev", a_name, "type", "veth", "peer", "name", b_name, "netns", str(b.pid))
    for end, name, address in ((a, a_name, a_address), (b, b_name, b_address)):
        end.run("ip", "address", "add", address, "dev", name)
        end.run("ip", "link", "set", name, "up")
    for end, name in ((a, a_name), (b, b_name)):
        _await_up(end, name)


def _await_up(end: Namespace, name: str) -> None:
    until = time.monotonic() + 10
    while "state UP" not in end.run("ip", "-oneline", "link", "show", "dev", name):
        assert time.monotonic() < until, f"{end.name}: {name} does not come up"
        time.sleep(0.02)
