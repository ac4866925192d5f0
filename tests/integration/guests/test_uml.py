"""User Mode Linux with busybox: a real kernel's network stack, as an ordinary process."""

import pytest
from support import guests
from support.proxy import Proxy

pytestmark = pytest.mark.slow


def test_user_mode_linux_gets_all_the_network_it_is_promised(proxy: Proxy) -> None:
    console = guests.boot(guests.UML, proxy.world.host, proxy.port)
    assert guests.checks(console) == guests.EXPECTED, f"{console}\n--- proxy ---\n{proxy.log}"
