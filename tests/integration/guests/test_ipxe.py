"""iPXE, a boot firmware with a network stack of its own, which waits for a router of IPv6."""

import re
import time

import pytest
from support import addresses as at
from support import guests
from support.dialogue import plain
from support.proxy import Proxy
from support.zoo import Row, record

pytestmark = pytest.mark.slow

_DOTS_WITHOUT_ADVERTISEMENT = 18
"""One a second, more or less: so many were measured while nothing answers its solicitations, else six."""


def test_ipxe_does_not_wait_for_a_router_of_ipv6(proxy: Proxy) -> None:
    script = f"""#!ipxe
dhcp net0 || reboot
show net0/ip || reboot
imgfetch http://{at.WEB}/hello || reboot
sleep 1
reboot
"""
    console = guests.boot(guests.ipxe(script), proxy.world.host, proxy.port)
    shown = f"{console}\n--- proxy ---\n{proxy.log}"
    assert at.GUEST in console, shown
    assert f"http://{at.WEB}/hello... ok" in console, shown
    waited = re.search(r"Configuring \(net0 [0-9a-f:]+\)(\.*)", console)
    assert waited is not None, shown
    assert len(waited[1]) < _DOTS_WITHOUT_ADVERTISEMENT - 5, shown


def test_ipxe_with_e1000_gets_lease_dns_and_a_second_stage_by_http(proxy: Proxy) -> None:
    """``chain`` runs what it loads, so the second stage's own word says that it came whole. This build has no
    nslookup: the name server's log says that it was asked."""
    script = """#!ipxe
ifconf -c dhcp net0 || reboot
show net0.dhcp/ip || reboot
show net0.dhcp/netmask || reboot
show net0.dhcp/gateway || reboot
show net0.dhcp/dns || reboot
chain http://web.example.test/second.ipxe || echo AERO-CHECK no second stage
sleep 1
reboot
"""
    services = proxy.world.internet_services
    before = len(services.events)
    started = time.monotonic()
    console = plain(guests.boot(guests.ipxe(script), proxy.world.host, proxy.port))
    seconds = time.monotonic() - started
    told = [line for line in console.splitlines() if line.startswith(("net0.dhcp/", "http://web.", "AERO-"))]
    assert told == [
        f"net0.dhcp/ip:ipv4 = {at.GUEST}",
        "net0.dhcp/netmask:ipv4 = 255.255.255.0",
        f"net0.dhcp/gateway:ipv4 = {at.GATEWAY}",
        f"net0.dhcp/dns:ipv4 = {at.GATEWAY}",
        "http://web.example.test/second.ipxe... ok",
        "AERO-CHECK the second stage came by name",
    ], f"{console}\n--- proxy ---\n{proxy.log}"
    reached = [(event.kind, event.local) for event in services.events[before:]]
    assert reached == [("dns", f"{at.NAMESERVER}:53"), ("http", f"{at.WEB}:{at.HTTP_PORT}")]
    version = re.findall(r"iPXE (\d+\.\d+\.\d+)", console)[0]
    record(Row(f"iPXE {version}", "iPXE", "e1000", "yes", "yes", "HTTP", "–", seconds))
