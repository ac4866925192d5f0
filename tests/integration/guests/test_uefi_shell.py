"""The UEFI shell that OVMF brings, on the network stack of EDK2."""

import re

import pytest
from support import addresses as at
from support import firmware, guests
from support.dialogue import Dialogue
from support.proxy import Proxy
from support.wait import wait_until
from support.zoo import Row, record

pytestmark = pytest.mark.slow

_SHELL = "^Shell> "
_DISK = r"^FS0:\\> "
_BOOT_S = 400
_COMMAND_S = 300
_LEASE = (
    f"name : eth0 Media State : Media present policy : dhcp mac addr : 52:54:00:12:34:56 "
    f"ipv4 address : {at.GUEST} subnet mask : 255.255.255.0 default gateway: {at.GATEWAY} "
    f"Routes (2 entries): Entry[0] Subnet : 10.0.2.0 Netmask: 255.255.255.0 Gateway: 0.0.0.0 "
    f"Entry[1] Subnet : 0.0.0.0 Netmask: 0.0.0.0 Gateway: {at.GATEWAY} DNS server : {at.GATEWAY}"
)


def _interface(shell: Dialogue) -> str:
    """What it says of its interface, without rules and line ends."""
    said = shell.run("ifconfig -l eth0", _SHELL, _COMMAND_S)
    return " ".join(said.replace("-" * 65, "").split())


def test_uefi_shell_gets_lease_ping_dns_http_and_tftp_from_another_port(proxy: Proxy) -> None:
    with guests.talk(firmware.UEFI_SHELL, proxy) as shell:
        shell.expect("^Press ESC in", _BOOT_S)
        shell.send("\r")
        shell.expect(_SHELL, _COMMAND_S)
        version = shell.run("ver", _SHELL, _COMMAND_S).splitlines()[0]
        connected = shell.run("connect -r", _SHELL, _COMMAND_S).splitlines()
        assert connected
        assert all(re.fullmatch(r"Connect - Handle \[\w+\] Result Success\.", line) for line in connected)
        assert shell.run("ifconfig -s eth0 dhcp", _SHELL, _COMMAND_S) == ""
        wait_until(lambda: f"ipv4 address : {at.GUEST}" in _interface(shell), "it has the lease", _COMMAND_S)
        assert _interface(shell) == _LEASE
        ping = shell.run(f"ping -n 3 {at.GATEWAY}", _SHELL, _COMMAND_S)
        assert "\n3 packets transmitted, 3 received, 0% packet loss, time " in ping
        assert shell.run("fs0:", _DISK, _COMMAND_S) == ""
        shell.run("http http://web.example.test/4MiB got", _DISK, _COMMAND_S)
        assert shell.run("comp got wanted", _DISK, _COMMAND_S) == "[no differences encountered]"
        before = len(proxy.world.internet_services.events)
        shell.run(f"tftp {at.WEB} hello", _DISK, _COMMAND_S)
        assert shell.run("type hello", _DISK, _COMMAND_S) == at.HELLO.decode().strip()
        seconds = shell.seconds
    senders = firmware.senders(proxy.world.internet_services, before)
    assert [sender.partition(":")[0] for sender in senders] == [at.WEB]
    assert senders != [f"{at.WEB}:{at.TFTP_PORT}"], "TFTP answered from the port that was asked"
    name = version.replace(" Interactive", "").replace("UEFI Shell v", "UEFI shell ")
    record(Row(name, "EDK2", "virtio-net-pci", "yes", "yes", "HTTP 4 MiB", "TFTP", seconds))
