"""Boots a real guest behind a bridge and returns what it wrote on its console."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support import addresses as at
from support import images, zone
from support.dialogue import Dialogue, dialogue
from support.ns import Namespace
from support.proxy import Proxy
from support.zoo import Row, record

_BRIDGE = Path(__file__).with_name("bridge.py")
_BOOT_S = 600  # seven times what the slowest guest takes while four others want each core
_PREFIX = "AERO-CHECK "
_DRIVER = "AERO-DRIVER "

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


@dataclass(frozen=True)
class Linux:
    """A kernel of the distribution's, and the emulated computer that it runs on."""

    emulator: tuple[str, ...]
    serial: str  # the console, as the kernel calls it
    package: str
    drivers: tuple[str, ...]
    architecture: str = ""  # of its programs, see support.images

    @property
    def kernel(self) -> images.Kernel:
        return images.kernel(self.package, self.drivers)


_PC_64 = ("qemu-system-x86_64", "-cpu", "max")
_PC_32 = ("qemu-system-i386",)
_ARM = ("qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a57")

CLOUD = Linux(_PC_64, "ttyS0", "linux-image-cloud-amd64", ("virtio_pci", "virtio_net"))


def pc_64(driver: str) -> Linux:
    """x86-64 Linux with the drivers of real cards."""
    return Linux(_PC_64, "ttyS0", "linux-image-amd64", (driver,))


def pc_32(driver: str) -> Linux:
    """i386 Linux."""
    return Linux(_PC_32, "ttyS0", "linux-image-686:i386", (driver,), "i386")


ARM64 = Linux(_ARM, "ttyAMA0", "linux-image-cloud-arm64:arm64", ("virtio_mmio", "virtio_net"), "arm64")


def qemu_command(card: Sequence[str], linux: Linux = CLOUD) -> list[str]:
    """Linux under QEMU with the given card, which has to be one of its drivers'."""
    kernel = linux.kernel
    initrd = images.initrd("eth0", kernel.modules, architecture=linux.architecture)
    return [
        *(*linux.emulator, "-accel", "tcg", "-m", "256", "-nodefaults"),
        *("-display", "none", "-no-reboot", "-serial", "stdio"),
        *("-kernel", str(kernel.image), "-initrd", str(initrd)),
        *("-append", f"console={linux.serial} quiet panic=-1", *card),
    ]


def _uml_command(directory: Path, sock: Path) -> list[str]:
    card = (
        f"vec0:transport=bess,src={directory}/own.sock,dst={sock},mac=02:00:00:00:00:0f,depth=64,gro=0,vec=0"
    )
    return uml_command(directory, card)


def qemu(linux: Linux, device: str) -> Machine:
    """Linux under QEMU with its card on the bridge."""

    def command(_directory: Path, sock: Path) -> list[str]:
        netdev = f"stream,id=n0,server=off,addr.type=unix,addr.path={sock}"
        return qemu_command(["-netdev", netdev, "-device", f"{device},netdev=n0"], linux)

    return Machine("stream", command)


UML = Machine("seqpacket", _uml_command)
QEMU_VIRTIO = qemu(CLOUD, "virtio-net-pci,romfile=")


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


@contextmanager
def bridged(kind: str, host: Namespace, port: int | str) -> Iterator[tuple[Path, Path]]:
    """A directory and in it the socket of a bridge to a tunnel of the proxy on ``port``; both end with the
    block."""
    with tempfile.TemporaryDirectory(prefix="aero-l2-guest-") as name:
        directory = Path(name)
        sock = directory / "bridge.sock"
        bridge = subprocess.Popen(
            host.enter(sys.executable, str(_BRIDGE), kind, str(sock), str(port)),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert bridge.stdout is not None
        try:
            assert bridge.stdout.readline() == "ready\n"
            yield directory, sock
        finally:
            bridge.terminate()
            bridge.wait(10)
            bridge.stdout.close()


def boot(machine: Machine, host: Namespace, port: int | str) -> str:
    """Boot the machine with its card bridged to a tunnel of the proxy on ``port``; its console until it
    powers off."""
    return timed_boot(machine, host, port)[0]


def timed_boot(machine: Machine, host: Namespace, port: int | str) -> tuple[str, float]:
    """The same, and the seconds from the start of its process.

    The machine itself runs in a network namespace without anything, so the tunnel is its only way out.
    """
    with bridged(machine.socket_kind, host, port) as (directory, sock):
        command = machine.command(directory, sock)
        started = time.monotonic()
        return console(command), time.monotonic() - started


@contextmanager
def talk(machine: Machine, proxy: Proxy) -> Iterator[Dialogue]:
    """Boot the machine like ``boot`` and talk with it; what fails in the block is shown with both logs."""
    try:
        with (
            bridged(machine.socket_kind, proxy.world.host, proxy.port) as (directory, sock),
            dialogue(machine.command(directory, sock)) as started,
        ):
            yield started
    except AssertionError as failure:
        failure.add_note(f"--- proxy ---\n{proxy.log}")
        raise


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


def driver(console: str) -> str:
    """The kernel's name of the driver that the guest's card has."""
    lines = (line.partition(_DRIVER) for line in console.splitlines())
    return next((rest.strip() for _, prefix, rest in lines if prefix), "")


def check_linux(machine: Machine, proxy: Proxy, guest: str, card: str, driver_name: str) -> None:
    """Boot a Linux whose first process is init.sh, ask all of EXPECTED of it, and record its row."""
    text, seconds = timed_boot(machine, proxy.world.host, proxy.port)
    shown = f"{text}\n--- proxy ---\n{proxy.log}"
    assert driver(text) == driver_name, shown
    assert checks(text) == EXPECTED, shown
    row = Row(guest, "Linux", card, "yes, renewed", "over UDP, TCP", "16 MiB each way", "echo", seconds)
    record(row)
