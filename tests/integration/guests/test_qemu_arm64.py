"""arm64 Linux with a virtio network card that is no PCI device, under QEMU."""

import pytest
from support import guests
from support.proxy import Proxy

pytestmark = pytest.mark.slow


def test_linux_on_arm64_gets_all_the_network_it_is_promised(proxy: Proxy) -> None:
    name = f"Linux {guests.ARM64.kernel.version} arm64"
    machine = guests.qemu(guests.ARM64, "virtio-net-device")
    guests.check_linux(machine, proxy, name, "virtio-net-device", "virtio_net")
