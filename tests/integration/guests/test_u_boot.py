"""U-Boot, a boot loader with a network stack of its own."""

import re

import pytest
from support import addresses as at
from support import firmware, guests
from support.guests import Machine
from support.proxy import Proxy
from support.zoo import Row, record

pytestmark = pytest.mark.slow

_PROMPT = "^=> "
_BOOT_S = 180
_COMMAND_S = 120
_TRANSFER_S = 600  # 2,857 blocks, each of which waits for the one before: about 10 s


def _dialogue(machine: Machine, load_address: str, proxy: Proxy) -> tuple[str, float]:
    """DHCP, ping, TFTP and the checksum of what came; U-Boot's version and the seconds it took."""
    with guests.talk(machine, proxy) as u_boot:
        version = re.findall(r"U-Boot (\d+\.\d+)", u_boot.expect(r"U-Boot \d.*\n", _BOOT_S))[0]
        u_boot.expect("Hit any key to stop autoboot", _BOOT_S)
        u_boot.send(" ")
        u_boot.expect(_PROMPT, _COMMAND_S)
        for setting in ("autoload no", "ethrotate no"):
            assert u_boot.run(f"setenv {setting}", _PROMPT, _COMMAND_S) == ""
        lease = u_boot.run("dhcp", _PROMPT, _COMMAND_S).splitlines()[-1]
        assert re.fullmatch(rf"DHCP client bound to address {at.GUEST} \(\d+ ms\)", lease)
        for variable, value in (
            ("ipaddr", at.GUEST),
            ("netmask", "255.255.255.0"),
            ("gatewayip", at.GATEWAY),
            ("dnsip", at.GATEWAY),
        ):
            assert u_boot.run(f"printenv {variable}", _PROMPT, _COMMAND_S) == f"{variable}={value}"
        ping = u_boot.run(f"ping {at.GATEWAY}", _PROMPT, _COMMAND_S).splitlines()[-1]
        assert ping == f"host {at.GATEWAY} is alive"
        before = len(proxy.world.internet_services.events)
        loaded = u_boot.run(f"tftpboot {load_address} {at.WEB}:4MiB", _PROMPT, _TRANSFER_S).splitlines()
        assert loaded[-2:] == ["done", f"Bytes transferred = {at.IMAGE_BYTES} ({at.IMAGE_BYTES:x} hex)"]
        start = int(load_address, 16)
        last = start + at.IMAGE_BYTES - 1
        checksum = u_boot.run(f"crc32 {load_address} {at.IMAGE_BYTES:x}", _PROMPT, _COMMAND_S)
        assert checksum == f"crc32 for {start:08x} ... {last:08x} ==> {at.image_crc32()}"
        seconds = u_boot.seconds
    senders = firmware.senders(proxy.world.internet_services, before)
    assert [sender.partition(":")[0] for sender in senders] == [at.WEB]
    assert senders != [f"{at.WEB}:{at.TFTP_PORT}"], "TFTP answered from the port that was asked"
    return version, seconds


def test_u_boot_on_arm64_gets_lease_ping_and_tftp_from_another_port(proxy: Proxy) -> None:
    version, seconds = _dialogue(firmware.U_BOOT_ARM64, "40400000", proxy)
    card = "virtio-net-pci"
    record(Row(f"U-Boot {version} arm64", "U-Boot", card, "yes", "–", "–", "TFTP 4 MiB", seconds))
