"""GRUB for EFI, a boot loader with a network stack of its own, on the firmware OVMF."""

import time

import pytest
from support import addresses as at
from support import firmware, guests
from support.dialogue import plain
from support.proxy import Proxy
from support.zoo import Row, record

pytestmark = pytest.mark.slow

# The name server is named before DHCP names it: GRUB 2.06 asks a server that DHCP named for A and AAAA at
# once, and an empty AAAA answer makes it drop the address that came with A.
_SCRIPT = f"""
set pager=0
insmod hashsum
net_add_dns {at.GATEWAY} --only-ipv4
net_bootp
net_ls_addr
net_ls_routes
net_nslookup cdn.example.test
cat (http,web.example.test)/hello
cat (tftp,web.example.test)/hello
hashsum --hash crc32 (http,web.example.test)/4MiB
echo AERO-END
halt
"""


def test_grub_gets_lease_dns_http_and_tftp_from_another_port(proxy: Proxy) -> None:
    services = proxy.world.internet_services
    before = len(services.events)
    started = time.monotonic()
    console = plain(guests.boot(firmware.grub(_SCRIPT), proxy.world.host, proxy.port))
    seconds = time.monotonic() - started
    shown = f"{console}\n--- proxy ---\n{proxy.log}"
    told = [line.strip() for line in console.partition("Welcome to GRUB!")[2].splitlines() if line.strip()]
    assert told == [
        f"efinet0:dhcp 52:54:00:12:34:56 {at.GUEST}",
        f"efinet0:dhcp:default 0.0.0.0/0 gw {at.GATEWAY}",
        "efinet0:dhcp:local 10.0.2.0/24 efinet0:dhcp",
        at.CDN,
        at.HELLO.decode().strip(),
        at.HELLO.decode().strip(),
        f"{at.image_crc32()}  (http,web.example.test)/4MiB",
        "AERO-END",
    ], shown
    senders = firmware.senders(services, before)
    assert [sender.partition(":")[0] for sender in senders] == [at.WEB]
    assert senders != [f"{at.WEB}:{at.TFTP_PORT}"], "TFTP answered from the port that was asked"
    guest = f"GRUB {firmware.grub_version()} EFI"
    record(Row(guest, "GRUB", "virtio-net-pci", "yes", "yes", "HTTP 4 MiB", "TFTP", seconds))
