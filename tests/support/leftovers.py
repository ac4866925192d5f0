"""How many network namespaces of a proxy the kernel has not freed, held by somebody or not.

A namespace that nobody holds any more is seen nowhere while the kernel takes it apart. But it counts against
user.max_net_namespaces of the user namespace it was made in (namespaces(7)) until it is freed; so whether one
more can be made under a limit says whether there are fewer than that, whatever else the machine does.
"""

import errno
import subprocess
import sys
import time
from types import TracebackType
from typing import Self

from support.proxy import Proxy

_NO_LIMIT = 1_000_000
_PROGRAM = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
NEWUSER, NEWNET = 0x10000000, 0x40000000
user = os.open(sys.argv[1], os.O_RDONLY)
if libc.setns(user, NEWUSER):
    sys.exit(os.strerror(ctypes.get_errno()))
os.setresgid(0, 0, 0)
os.setresuid(0, 0, 0)
for line in sys.stdin:
    with open("/proc/sys/user/max_net_namespaces", "w") as limit:
        limit.write(line)
    child = os.fork()
    if child == 0:
        os._exit(ctypes.get_errno() if libc.unshare(NEWNET) else 0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Leftovers:
    """Counts a proxy's namespaces; a context manager, which lifts the limit at its end."""

    def __init__(self, proxy: Proxy) -> None:
        command = [sys.executable, "-c", _PROGRAM, f"/proc/{proxy.one('netd')}/ns/user"]
        self._probe = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._probe.stdin is not None
        assert self._probe.stdout is not None
        try:
            self._can_make_one(_NO_LIMIT)
        finally:
            self._probe.stdin.close()
            self._probe.wait(10)
            self._probe.stdout.close()

    def fewer_than(self, count: int) -> bool:
        """Whether there are fewer than ``count``, the one that netd's threads wait in included.

        Leaves that as the limit for everybody, and makes one where it can, which then is taken apart too.
        """
        return self._can_make_one(count)

    def _can_make_one(self, limit: int) -> bool:
        assert self._probe.stdin is not None
        assert self._probe.stdout is not None
        self._probe.stdin.write(f"{limit}\n")
        self._probe.stdin.flush()
        status = int(self._probe.stdout.readline())
        assert status in (0, errno.ENOSPC), status
        return status == 0

    def seconds_until_fewer_than(self, count: int, timeout_s: float) -> float:
        """How long it takes; raises AssertionError where it takes too long."""
        began = time.monotonic()
        while not self.fewer_than(count):
            passed = time.monotonic() - began
            assert passed < timeout_s, f"after {passed:.0f} s there still are {count} namespaces or more"
            time.sleep(0.05)
        return time.monotonic() - began
