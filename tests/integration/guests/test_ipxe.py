"""iPXE, a boot firmware with a network stack of its own, which waits for a router of IPv6."""

import re
import time

import pytest
from support import addresses as at
from support import guests
from support.proxy import Proxy
from support.zoo import Row, record

pytestmark = pytest.mark.slow

_DOTS_WITHOUT_ADVERTISEMENT = 18
"""One a second, more or less: so many were measured while nothing answers its solicitations, else six."""


def test_ipxe_does_not_wait_for_a_router_of_ipv6(proxy: Proxy) -> None:
    script = f"""#!ipxe
dhcp net0 || reboot
show net0/ip
imgfetch http://{at.WEB}/hello || reboot
sleep 1
reboot
"""
    started = time.monotonic()
    console = guests.boot(guests.ipxe(script), proxy.world.host, proxy.port)
    seconds = time.monotonic() - started
    shown = f"{console}\n--- proxy ---\n{proxy.log}"
    assert at.GUEST in console, shown
    assert f"http://{at.WEB}/hello... ok" in console, shown
    waited = re.search(r"Configuring \(net0 [0-9a-f:]+\)(\.*)", console)
    assert waited is not None, shown
    assert len(waited[1]) < _DOTS_WITHOUT_ADVERTISEMENT - 5, shown
    record(Row("iPXE", "iPXE", "e1000", "yes", "–", "HTTP", "–", seconds))
