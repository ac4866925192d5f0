"""slirp4netns as the NAT process: a user-mode stack on sockets of its own; slirp4netns(1)."""

import os
import resource
import shutil
import subprocess

from slirp.errors import NatMissing, NatStartError
from slirp.features import Features, probe

NETWORK = "10.0.3.0/24"
MTU = 1500
"""Of what it sends towards the guest. What it reads may be larger."""
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "65536"}
"""mallopt(3): each TCP buffer a mapping of its own, so that an idle flow costs no memory (docs/adr/0016)."""


class Slirp4netns:
    """The driver. ``search_path`` is where the program is looked for, as in PATH."""

    def __init__(self, search_path: str) -> None:
        self._search_path = search_path
        self._features: dict[tuple[str, int], Features] = {}

    def prepare(self) -> None:
        """Find the program; probe it once per path and modification time. Raises NatError."""
        self.program()

    def start(
        self,
        *,
        netns: int,
        tap: str,
        exit_fd: int,
        ready_fd: int,
        stderr_fd: int,
        host_loopback: bool,
        max_files: int,
    ) -> int:
        """See `slirp.backend.Backend.start`. Sandbox and seccomp are always on, its DNS always off."""
        command = [
            self.program(),
            f"--exit-fd={exit_fd}",
            f"--ready-fd={ready_fd}",
            f"--mtu={MTU}",
            f"--cidr={NETWORK}",
            "--netns-type=path",
            "--enable-sandbox",
            "--enable-seccomp",
            "--disable-dns",
            *([] if host_loopback else ["--disable-host-loopback"]),
            f"/proc/self/fd/{netns}",
            tap,
        ]
        try:
            child = subprocess.Popen(  # every part is made here
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr_fd,
                env=ALLOCATOR,
                cwd="/",
                pass_fds=(netns, exit_fd, ready_fd),
            )
        except OSError as error:
            raise NatStartError(f"cannot run {command[0]}: {os.strerror(error.errno or 0)}") from error
        child.returncode = 0  # the caller reaps it by pid; this object must neither wait nor warn
        self._limit_files(child.pid, max_files)
        return child.pid

    def program(self) -> str:
        """Its path, once its features are known to do. Raises NatError."""
        found = shutil.which("slirp4netns", path=self._search_path)
        if found is None:
            raise NatMissing(
                f"slirp4netns is not installed: no such program in {self._search_path} (package slirp4netns)"
            )
        key = (found, os.stat(found).st_mtime_ns)
        if key not in self._features:
            self._features = {key: probe(found)}
        return found

    @staticmethod
    def _limit_files(pid: int, max_files: int) -> None:
        """Before it has a socket: its first packet comes only after the tunnel is handed over."""
        hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
        limit = max_files if hard == resource.RLIM_INFINITY else min(max_files, hard)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))
