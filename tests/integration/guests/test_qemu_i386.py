"""i386 Linux under QEMU with network cards of the nineties."""

import pytest
from support import guests
from support.proxy import Proxy

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("card", "module", "driver"),
    [
        ("ne2k_pci", "ne2k_pci", "ne2k-pci"),
        ("rtl8139", "8139cp", "8139cp"),  # what QEMU emulates is a C+, which 8139too leaves to this one
        ("pcnet", "pcnet32", "pcnet32"),
    ],
)
def test_linux_with_an_old_card_gets_all_the_network_it_is_promised(
    proxy: Proxy, card: str, module: str, driver: str
) -> None:
    linux = guests.pc_32(module)
    machine = guests.qemu(linux, f"{card},romfile=")
    guests.check_linux(machine, proxy, f"Linux {linux.kernel.version} i386", card, driver)
