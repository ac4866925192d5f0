"""Boots a real guest behind a bridge and returns what it wrote on its console."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from support import addresses as at
from support import images, zone
from support.ns import Namespace

_BRIDGE = Path(__file__).with_name("bridge.py")
_BOOT_S = 180  # about ten times what the slowest guest takes on an idle machine
_PREFIX = "AERO-CHECK "

_LEASE = f"{at.GUEST}/24 router {at.GATEWAY} dns {at.GATEWAY} lease 86400 server {at.GATEWAY} mtu 1500"
_BIG_TXT_BYTES = len(zone.answer(zone.query("big.example.test.", "TXT"), tcp=True) or b"")

# What every guest has to show, line by line, in this order.
EXPECTED = (
    f"lease ok {_LEASE}",
    "ping ok 1 packets received",
    f"dns-udp ok rcode 0 tc 0 answers 1 bytes 50 {at.WEB}",
    f"dns-tcp ok rcode 0 tc 0 answers {len(zone.BIG_TEXT)} bytes {_BIG_TXT_BYTES}",
    f"http-by-name ok {at.HELLO.decode().strip()}",
    f"download ok {at.payload_sha256()}",
    f"upload ok {at.payload_sha256()}",
    f"half-close ok {at.TRAILER.decode().strip()} intact 20000 of 20000",
    "udp-echo ok echoed-over-udp",
    f"renewal ok {_LEASE}",
)


@dataclass(frozen=True)
class Machine:
    """How to start a kind of machine: socket kind of the bridge, and the command line for (directory,
    socket)."""

    socket_kind: str
    command: Callable[[Path, Path], list[str]]


def uml_command(directory: Path, card: str, script: str = images.INIT) -> list[str]:
    """User Mode Linux with the given card; its console is stdin and stdout."""
    initrd = images.initrd("vec0", script=script)
    return [
        *("linux.uml", "mem=128M", f"initrd={initrd}", "root=/dev/ram", "con0=fd:0,fd:1", "con=null"),
        *("rdinit=/init", f"uml_dir={directory}/uml", card, "quiet"),
    ]


def qemu_command(card: Sequence[str]) -> list[str]:
    """x86-64 Linux under QEMU with the given card, which has to be a virtio one."""
    kernel = images.cloud_kernel()
    initrd = images.initrd("eth0", kernel.modules)
    return [
        *("qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "256", "-nodefaults"),
        *("-display", "none", "-no-reboot", "-serial", "stdio"),
        *("-kernel", str(kernel.image), "-initrd", str(initrd)),
        *("-append", "console=ttyS0 quiet panic=-1", *card),
    ]


def _uml_command(directory: Path, sock: Path) -> list[str]:
    card = (
        f"vec0:transport=bess,src={directory}/own.sock,dst={sock},mac=02:00:00:00:00:0f,depth=64,gro=0,vec=0"
    )
    return uml_command(directory, card)


def _qemu_command(_directory: Path, sock: Path) -> list[str]:
    netdev = f"stream,id=n0,server=off,addr.type=unix,addr.path={sock}"
    return qemu_command(["-netdev", netdev, "-device", "virtio-net-pci,netdev=n0,romfile="])


UML = Machine("seqpacket", _uml_command)
QEMU_VIRTIO = Machine("stream", _qemu_command)


def ipxe(script: str) -> Machine:
    """iPXE with an Intel card; it runs ``script``, which has to end with reboot."""

    def command(directory: Path, sock: Path) -> list[str]:
        (directory / "script").write_text(script)
        return [
            *("qemu-system-x86_64", "-accel", "tcg", "-m", "128", "-nographic", "-monitor", "none"),
            *("-no-reboot", "-kernel", "/usr/lib/ipxe/ipxe.lkrn", "-initrd", str(directory / "script")),
            *("-netdev", f"stream,id=n0,server=off,addr.type=unix,addr.path={sock}"),
            *("-device", "e1000,netdev=n0,romfile="),
        ]

    return Machine("stream", command)


def boot(machine: Machine, host: Namespace, port: int) -> str:
    """Boot the machine with its card bridged to a tunnel of the proxy on ``port``; its console until it
    powers off.

    The machine itself runs in a network namespace without anything, so the tunnel is its only way out.
    """
    with tempfile.TemporaryDirectory(prefix="aero-l2-guest-") as name:
        directory = Path(name)
        sock = directory / "bridge.sock"
        bridge = subprocess.Popen(
            host.enter(sys.executable, str(_BRIDGE), machine.socket_kind, str(sock), str(port)),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert bridge.stdout is not None
        try:
            assert bridge.stdout.readline() == "ready\n"
            return console(machine.command(directory, sock))
        finally:
            bridge.terminate()
            bridge.wait(10)
            bridge.stdout.close()


def console(command: list[str]) -> str:
    """Run a machine in a network namespace without anything; its console until it powers off."""
    process = subprocess.Popen(
        ["unshare", "--net", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    )
    try:
        output, _ = process.communicate(timeout=_BOOT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        output, _ = process.communicate()
        output += b"\n(killed by the test after its deadline)\n"
    return output.decode(errors="replace").replace("\r", "")


def checks(console: str) -> tuple[str, ...]:
    """The lines of the guest's checks, without their prefix."""
    lines = (line.partition(_PREFIX) for line in console.splitlines())
    return tuple(rest.strip() for _, prefix, rest in lines if prefix)
