"""Kernel and initrd of the guests, built from Debian packages and tests/integration/guests, cached by
content."""

import hashlib
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support import addresses as at

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".cache/guests"
SOURCES = REPOSITORY / "tests/integration/guests"
KERNEL_PACKAGE = "linux-image-cloud-amd64"
INIT = "init.sh"
# In the order of their dependencies; af_packet is built in.
_MODULES = (
    "virtio/virtio_ring.ko",
    "virtio/virtio.ko",
    "virtio/virtio_pci_legacy_dev.ko",
    "virtio/virtio_pci_modern_dev.ko",
    "virtio/virtio_pci.ko",
    "net/core/failover.ko",
    "net/net_failover.ko",
    "net/virtio_net.ko",
)
_APPLETS = "cat cut echo grep insmod ip kill mount mv ping poweroff sh sha256sum stty tail udhcpc usleep wget"


@dataclass(frozen=True)
class Kernel:
    """A kernel image and the virtio modules of the same build, in loading order."""

    image: Path
    modules: tuple[Path, ...]


def _output(*argv: str, cwd: Path | None = None) -> str:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
    return done.stdout


def downloaded(package: str) -> Path:
    """The unpacked files of a package that is not installed; fetched by apt-get where ./dev has not done so
    yet."""
    target = CACHE / package
    if not target.exists():
        new = CACHE / f".new-{package}-{os.getpid()}"
        new.mkdir(parents=True)
        about = _output("apt-cache", "show", "--no-all-versions", package)
        kernel = re.search(r"^Depends: *(linux-image-[0-9][^ ,]*)", about, re.MULTILINE)
        wanted = kernel.group(1) if kernel else package  # a meta package stands for the kernel it depends on
        _output("apt-get", "-qq", "download", "-o", "APT::Sandbox::User=root", wanted, cwd=new)
        _output("dpkg", "-x", str(next(new.glob("*.deb"))), str(new / "tree"))
        (new / "tree").rename(target)
        shutil.rmtree(new)
    return target


def cloud_kernel() -> Kernel:
    """The x86-64 kernel for QEMU."""
    tree = downloaded(KERNEL_PACKAGE)
    image = next((tree / "boot").glob("vmlinuz-*"))
    version = image.name.removeprefix("vmlinuz-")
    modules = next(found for found in tree.glob(f"**/modules/{version}/kernel"))
    roots = {"net/core": modules}
    return Kernel(
        image, tuple(roots.get(name.rpartition("/")[0], modules / "drivers") / name for name in _MODULES)
    )


def guestnet() -> Path:
    """guestnet.c as a static program."""
    source = SOURCES / "guestnet.c"
    target = CACHE / f"guestnet-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f".new-{target.name}-{os.getpid()}")
        _output(
            "gcc",
            "-static",
            "-O2",
            "-std=c11",
            "-D_GNU_SOURCE",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-o",
            str(new),
            str(source),
        )
        new.rename(target)
    return target


@dataclass(frozen=True)
class _Entry:
    """One file of the archive."""

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def _cpio(entries: Iterator[_Entry]) -> bytes:
    """An archive in the kernel's ``newc`` format
    (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    archive = bytearray()
    for number, entry in enumerate([*entries, _Entry("TRAILER!!!", 0)], start=1):
        name = entry.name.encode() + b"\0"
        fields = (number, entry.mode, 0, 0, 1, 0, len(entry.content), 0, 0, *entry.device, len(name), 0)
        archive += b"070701" + b"".join(b"%08X" % value for value in fields) + name
        archive += bytes(-len(archive) % 4) + entry.content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)


def _entries(interface: str, modules: tuple[Path, ...], script: str) -> Iterator[_Entry]:
    for directory in ("bin", "dev", "etc", "modules", "proc", "sys", "tmp"):
        yield _Entry(directory, stat.S_IFDIR | 0o755)
    yield _Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    yield _Entry("dev/null", stat.S_IFCHR | 0o666, device=(1, 3))
    busybox = shutil.which("busybox")
    assert busybox, "busybox-static is not installed (./dev setup)"
    yield _Entry("bin/busybox", stat.S_IFREG | 0o755, Path(busybox).read_bytes())
    for applet in _APPLETS.split():
        yield _Entry(f"bin/{applet}", stat.S_IFLNK | 0o777, b"busybox")
    yield _Entry("bin/guestnet", stat.S_IFREG | 0o755, guestnet().read_bytes())
    for module in modules:
        yield _Entry(f"modules/{module.name}", stat.S_IFREG | 0o644, module.read_bytes())
    init = (SOURCES / script).read_text()
    names = " ".join(module.name for module in modules)
    for mark, value in (("@INTERFACE@", interface), ("@WEB@", at.WEB), ("@MODULES@", names)):
        init = init.replace(mark, value)
    yield _Entry("init", stat.S_IFREG | 0o755, init.encode())
    yield _Entry("udhcpc.sh", stat.S_IFREG | 0o755, (SOURCES / "udhcpc.sh").read_bytes())


def initrd(interface: str, modules: tuple[Path, ...] = (), script: str = INIT) -> Path:
    """An initrd whose /init is ``script`` for ``interface``; by default the one that runs the checks."""
    archive = _cpio(_entries(interface, modules, script))
    target = CACHE / f"initrd-{hashlib.sha256(archive).hexdigest()[:16]}"
    if not target.exists():
        new = target.with_name(f".new-{target.name}-{os.getpid()}")
        new.write_bytes(archive)
        new.rename(target)
    return target
