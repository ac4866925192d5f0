"""x86-64 Linux with an Intel card under QEMU, on the distribution's kernel for real machines."""

import pytest
from support import guests
from support.proxy import Proxy

pytestmark = pytest.mark.slow


def test_linux_with_e1000_gets_all_the_network_it_is_promised(proxy: Proxy) -> None:
    linux = guests.pc_64("e1000")
    machine = guests.qemu(linux, "e1000,romfile=")
    guests.check_linux(machine, proxy, f"Linux {linux.kernel.version} x86-64", "e1000", "e1000")
