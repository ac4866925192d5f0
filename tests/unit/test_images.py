"""The guests' kernels: which modules are loaded, and in which order."""

import lzma
from pathlib import Path

import pytest
from support import images


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the modules of a kernel package are; the cache has no other package."""
    monkeypatch.setattr(images, "CACHE", tmp_path)
    monkeypatch.setattr(images, "REPOSITORY", tmp_path)
    boot = tmp_path / "linux-image/boot"
    boot.mkdir(parents=True)
    (boot / "vmlinuz-9.10.3-vax").touch()
    folder = tmp_path / "linux-image/usr/lib/modules/9.10.3-vax/kernel"
    folder.mkdir(parents=True)
    return folder


def module(path: Path, depends: str) -> None:
    """A module of which only the section .modinfo is there, packed where its name says so."""
    content = b"\x7fELF license=GPL\0depends=" + depends.encode() + b"\0name=it\0"
    path.write_bytes(lzma.compress(content) if path.suffix == ".xz" else content)


def test_what_a_driver_needs_is_loaded_before_it_and_once(modules: Path) -> None:
    module(modules / "de100-pci.ko.xz", "de100_core,mii")
    module(modules / "de100-core.ko.xz", "mii")
    module(modules / "mii.ko", "")
    module(modules / "other.ko", "de100_core")
    kernel = images.kernel("linux-image", ("de100_pci", "mii"))
    assert kernel.version == "9.10"
    assert [path.name for path in kernel.modules] == ["mii.ko", "de100-core.ko.xz", "de100-pci.ko.xz"]


def test_what_is_not_there_is_said_in_one_line(modules: Path) -> None:
    with pytest.raises(
        AssertionError, match=r"^busybox-static:vax is not in \. \(\./dev test downloads it\)$"
    ):
        images.busybox("vax")
    with pytest.raises(AssertionError, match=r"^linux-image has no module de100$"):
        images.kernel("linux-image", ("de100",))
