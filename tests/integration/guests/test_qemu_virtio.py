"""x86-64 Linux with a virtio network card under QEMU, on the distribution's cloud kernel."""

import pytest
from support import guests
from support.proxy import Proxy

pytestmark = pytest.mark.slow


def test_linux_with_virtio_gets_all_the_network_it_is_promised(proxy: Proxy) -> None:
    name = f"Linux {guests.CLOUD.kernel.version} x86-64"
    guests.check_linux(guests.QEMU_VIRTIO, proxy, name, "virtio-net-pci", "virtio_net")
