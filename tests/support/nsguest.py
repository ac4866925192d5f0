"""A guest whose network stack is Linux's own: a namespace with a TAP that is bridged to a tunnel."""

import asyncio
import fcntl
import os
import struct
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support import addresses as at
from support.ns import Namespace, namespace
from support.tunnel import Tunnel

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_FRAME = 2048
_UDHCPC = Path(__file__).resolve().parents[1] / "integration/guests/udhcpc.sh"


class NamespaceGuest:
    """Runs programs as if on the guest; its card is ``eth0``, its resolver the gateway."""

    def __init__(self, where: Namespace, resolv_conf: Path) -> None:
        self.namespace = where
        self._resolv_conf = resolv_conf

    def command(self, *argv: str) -> list[str]:
        """The command line that runs ``argv`` on the guest."""
        script = 'mount --bind "$1" /etc/resolv.conf; shift; exec "$@"'
        private = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", script, "sh"]
        return self.namespace.enter(*private, str(self._resolv_conf), *argv)

    async def run(self, *argv: str, stdin: bytes = b"", timeout_s: float = 60) -> bytes:
        """Run a program, return its stdout; raises AssertionError with its stderr if it fails."""
        status, output, errors = await self.attempt(*argv, stdin=stdin, timeout_s=timeout_s)
        assert status == 0, f"{' '.join(argv)}: {status}: {errors}"
        return output

    async def attempt(self, *argv: str, stdin: bytes = b"", timeout_s: float = 60) -> tuple[int, bytes, str]:
        """Run a program that may fail: exit status, stdout, stderr."""
        pipe = subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *self.command(*argv), stdin=pipe, stdout=pipe, stderr=pipe
        )
        try:
            output, errors = await asyncio.wait_for(process.communicate(stdin), timeout_s)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode or 0, output, errors.decode(errors="replace")

    async def lease(self) -> None:
        """Get the address by busybox udhcpc, which quits once it has it."""
        client = [
            "busybox",
            "udhcpc",
            "-i",
            "eth0",
            "-f",
            "-q",
            "-n",
            "-t",
            "20",
            "-T",
            "1",
            "-s",
            str(_UDHCPC),
        ]
        await self.run("env", f"NOTES={self._resolv_conf.parent}", *client)


def open_tap() -> int:
    """A TAP named eth0 in the calling thread's namespace."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", b"eth0", _IFF_TAP | _IFF_NO_PI))
    return tap


async def _from_tap(tap: int, tunnel: Tunnel) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(tap, readable.set)
    try:
        while tunnel.is_open:
            await readable.wait()
            readable.clear()
            try:
                while True:
                    await tunnel.send(os.read(tap, _FRAME))
            except BlockingIOError:
                continue
    finally:
        loop.remove_reader(tap)


async def _to_tap(tap: int, tunnel: Tunnel) -> None:
    while True:
        os.write(tap, await tunnel.frames.get())


@asynccontextmanager
async def ns_guest(tunnel: Tunnel, *, static: bool = True) -> AsyncIterator[NamespaceGuest]:
    """A Linux guest on the tunnel, with the static address or (``static=False``) none until ``lease``."""
    with namespace("guest") as where, tempfile.TemporaryDirectory() as directory:
        resolv_conf = Path(directory) / "resolv.conf"
        resolv_conf.write_text(f"nameserver {at.GATEWAY}\n")
        tap = where.call(open_tap)
        where.run("ip", "link", "set", "eth0", "up")
        if static:
            where.run("ip", "address", "add", f"{at.GUEST}/24", "dev", "eth0")
            where.run("ip", "route", "add", "default", "via", at.GATEWAY)
        pumps = [asyncio.create_task(_from_tap(tap, tunnel)), asyncio.create_task(_to_tap(tap, tunnel))]
        try:
            yield NamespaceGuest(where, resolv_conf)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            os.close(tap)
