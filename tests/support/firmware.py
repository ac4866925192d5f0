"""Boot firmware as guests: machines whose network stack is the firmware's own."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from support import addresses as at
from support.guests import Machine
from support.images import downloaded
from support.wait import wait_until
from support.world import Services

_U_BOOT = Path("/usr/lib/u-boot")
_OVMF = Path("/usr/share/OVMF")
_GRUB = Path("usr/lib/grub/x86_64-efi")
_QUIET = ("-accel", "tcg", "-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot")


def _card(sock: Path, model: str) -> list[str]:
    netdev = f"stream,id=n0,server=off,addr.type=unix,addr.path={sock}"
    return ["-netdev", netdev, "-device", f"{model},netdev=n0,romfile="]


def _u_boot_arm64(_directory: Path, sock: Path) -> list[str]:
    return [
        *("qemu-system-aarch64", *_QUIET, "-M", "virt", "-cpu", "cortex-a57", "-m", "128"),
        *("-bios", str(_U_BOOT / "qemu_arm64/u-boot.bin"), *_card(sock, "virtio-net-pci")),
    ]


U_BOOT_ARM64 = Machine("stream", _u_boot_arm64)


def _ovmf(directory: Path, sock: Path, files: Mapping[str, bytes], card: str) -> list[str]:
    """A PC with UEFI and a disk that QEMU makes of ``files``.

    The card has to be virtio's: without an option ROM this firmware has no driver for another.
    """
    disk = directory / "disk"
    for name, content in files.items():
        (disk / name).parent.mkdir(parents=True, exist_ok=True)
        (disk / name).write_bytes(content)
    variables = shutil.copy(_OVMF / "OVMF_VARS_4M.fd", directory / "variables.fd")
    code = f"if=pflash,unit=0,format=raw,readonly=on,file={_OVMF / 'OVMF_CODE_4M.fd'}"
    return [
        *("qemu-system-x86_64", *_QUIET, "-M", "q35", "-m", "256", "-nodefaults"),
        *("-drive", code, "-drive", f"if=pflash,unit=1,format=raw,file={variables}"),
        *("-drive", f"if=none,id=d0,format=raw,file=fat:rw:{disk}", "-device", "ide-hd,drive=d0,bootindex=1"),
        *_card(sock, card),
    ]


def grub(script: str) -> Machine:
    """GRUB for EFI with the network built in (Debian's grubnetx64); it runs ``script``, which has to halt.

    The card's boot index, behind the disk's, makes the firmware connect it; else GRUB sees none.
    """
    modules = downloaded("grub-efi-amd64-bin") / _GRUB
    files = {
        "EFI/BOOT/BOOTX64.EFI": (modules / "monolithic/grubnetx64.efi").read_bytes(),
        "grub/grub.cfg": script.encode(),
    }
    for name in ("http.mod", "hashsum.mod"):
        files[f"grub/x86_64-efi/{name}"] = (modules / name).read_bytes()
    return Machine(
        "stream", lambda directory, sock: _ovmf(directory, sock, files, "virtio-net-pci,bootindex=2")
    )


def grub_version() -> str:
    """What the program says of itself, ``2.06``: it stands in it with the package's revision."""
    program = (downloaded("grub-efi-amd64-bin") / _GRUB / "monolithic/grubnetx64.efi").read_bytes()
    found = re.search(rb"(\d+\.\d+)-\d+[+~.\w]*\0", program)
    assert found, "the version is not where it was"
    return found[1].decode()


def _shell(directory: Path, sock: Path) -> list[str]:
    return _ovmf(directory, sock, {"wanted": at.image()}, "virtio-net-pci")


UEFI_SHELL = Machine("stream", _shell)
"""The shell that OVMF brings: nothing on the disk can be booted, and a card without a boot index is not tried
(each of PXE and HTTP over IPv6 would take a minute). ``wanted`` on the disk is ``at.image()``."""


def senders(services: Services, before: int) -> list[str]:
    """``address:port`` of each file that TFTP has sent whole since there were ``before`` events; at least
    one."""

    def sent() -> list[str]:
        return [event.local for event in services.events[before:] if event.kind == "tftp-sent"]

    return wait_until(sent, "a transfer by TFTP has ended")
