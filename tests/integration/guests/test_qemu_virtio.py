"""x86-64 Linux with a virtio network card under QEMU, on the distribution's cloud kernel."""

import pytest
from support import guests
from support.proxy import Proxy

pytestmark = pytest.mark.slow


def test_linux_with_virtio_gets_all_the_network_it_is_promised(proxy: Proxy) -> None:
    console = guests.boot(guests.QEMU_VIRTIO, proxy.world.host, proxy.port)
    assert guests.checks(console) == guests.EXPECTED, f"{console}\n--- proxy ---\n{proxy.log}"
