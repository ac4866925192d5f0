"""Kernel and initrd of the guests, built from Debian packages and tests/integration/guests, cached by
content.

An architecture is called as Debian calls it; empty, it is this machine's own.
"""

import hashlib
import lzma
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
INIT = "init.sh"
_COMPILERS = {"": "gcc", "arm64": "aarch64-linux-gnu-gcc", "i386": "i686-linux-gnu-gcc"}
_APPLETS = (
    "cat cut echo grep insmod ip kill mount mv ping poweroff readlink sh sha256sum stty tail udhcpc"
    " usleep wget"
)


@dataclass(frozen=True)
class Kernel:
    """A kernel image and the modules of the same build that a guest needs, in loading order."""

    image: Path
    modules: tuple[Path, ...]

    @property
    def version(self) -> str:
        """Its first two numbers."""
        found = re.search(r"-(\d+\.\d+)\.", self.image.name)
        assert found, self.image
        return found[1]


def downloaded(package: str) -> Path:
    """The unpacked files of a package of tests/packages-download.txt."""
    tree = CACHE / package
    assert tree.is_dir(), f"{package} is not in {CACHE.relative_to(REPOSITORY)} (./dev test downloads it)"
    return tree


def kernel(package: str, drivers: tuple[str, ...]) -> Kernel:
    """The kernel of a package, with these drivers and what they depend on."""
    tree = downloaded(package)
    image = next((tree / "boot").glob("vmlinuz-*"))
    version = image.name.removeprefix("vmlinuz-")
    files = {_module_name(path): path for path in tree.glob(f"**/modules/{version}/kernel/**/*.ko*")}
    order: list[Path] = []

    def add(name: str) -> None:
        assert name in files, f"{package} has no module {name}"
        if files[name] not in order:
            for needed in _depends(files[name]):
                add(needed)
            order.append(files[name])

    for driver in drivers:
        add(driver)
    return Kernel(image, tuple(order))


def _module_name(path: Path) -> str:
    """As modules name each other: file names may have a dash instead."""
    return path.name.partition(".ko")[0].replace("-", "_")


def _module(path: Path) -> bytes:
    """The module as insmod(8) of busybox takes it."""
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content


def _depends(path: Path) -> list[str]:
    """What the module says that it needs (its section .modinfo; modules.dep is made at installation)."""
    found = re.search(rb"\bdepends=([^\0]*)\0", _module(path))
    assert found, f"{path.name} does not say what it depends on"
    return [name for name in found[1].decode().replace("-", "_").split(",") if name]


def guestnet(architecture: str = "") -> Path:
    """guestnet.c as a static program."""
    source = SOURCES / "guestnet.c"
    compiler = _COMPILERS[architecture]
    assert shutil.which(compiler), f"{compiler} is not installed (./dev test)"
    made_from = source.read_bytes() + compiler.encode()
    target = CACHE / f"guestnet-{hashlib.sha256(made_from).hexdigest()[:16]}"
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f".new-{target.name}-{os.getpid()}")
        options = ("-static", "-O2", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror")
        done = subprocess.run(
            [compiler, *options, "-o", str(new), str(source)], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        new.rename(target)
    return target


def busybox(architecture: str = "") -> Path:
    """busybox-static as a file."""
    if architecture:
        tree = downloaded(f"busybox-static:{architecture}")
        return next(tree.glob("**/bin/busybox"))
    installed = shutil.which("busybox")
    assert installed, "busybox-static is not installed (./dev test)"
    return Path(installed)


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


def _entries(interface: str, modules: tuple[Path, ...], script: str, architecture: str) -> Iterator[_Entry]:
    for directory in ("bin", "dev", "etc", "modules", "proc", "sys", "tmp"):
        yield _Entry(directory, stat.S_IFDIR | 0o755)
    yield _Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    yield _Entry("dev/null", stat.S_IFCHR | 0o666, device=(1, 3))
    yield _Entry("bin/busybox", stat.S_IFREG | 0o755, busybox(architecture).read_bytes())
    for applet in _APPLETS.split():
        yield _Entry(f"bin/{applet}", stat.S_IFLNK | 0o777, b"busybox")
    yield _Entry("bin/guestnet", stat.S_IFREG | 0o755, guestnet(architecture).read_bytes())
    names = [path.name.removesuffix(".xz") for path in modules]
    for name, path in zip(names, modules, strict=True):
        yield _Entry(f"modules/{name}", stat.S_IFREG | 0o644, _module(path))
    init = (SOURCES / script).read_text()
    for mark, value in (("@INTERFACE@", interface), ("@WEB@", at.WEB), ("@MODULES@", " ".join(names))):
        init = init.replace(mark, value)
    yield _Entry("init", stat.S_IFREG | 0o755, init.encode())
    yield _Entry("udhcpc.sh", stat.S_IFREG | 0o755, (SOURCES / "udhcpc.sh").read_bytes())


def initrd(
    interface: str, modules: tuple[Path, ...] = (), script: str = INIT, architecture: str = ""
) -> Path:
    """An initrd whose /init is ``script`` for ``interface``; by default the one that runs the checks."""
    archive = _cpio(_entries(interface, modules, script, architecture))
    target = CACHE / f"initrd-{hashlib.sha256(archive).hexdigest()[:16]}"
    if not target.exists():
        new = target.with_name(f".new-{target.name}-{os.getpid()}")
        new.write_bytes(archive)
        new.rename(target)
    return target
