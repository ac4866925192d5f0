"""Real DHCP clients in a namespace of their own get the lease from the server on the gateway's interface."""

import asyncio
import os
import re
import select
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
from support.ns import Namespace, link, namespace
from support.wait import until

from aero_l2.services.dhcp.codec import CLIENT_ID, decode
from aero_l2.services.dhcp.server import DhcpServer

pytestmark = pytest.mark.slow

MAC = bytes.fromhex("525500112233")
DISCOVER = b"".join(
    (
        bytes.fromhex("01010600 00000007 0000 8000"),
        bytes(16) + MAC.ljust(16, b"\x00") + bytes(192),
        bytes.fromhex("63825363 350101 3d0400616263 ff"),
    )
)

# Both clients call a script with what they were given; this one keeps it instead of touching the system.
SCRIPT = """#!/bin/sh
case "$1$reason" in
  bound|renew|BOUND|REBOOT|RENEW|REBIND)
    ip address replace "${ip:-$new_ip_address}/24" dev eth0 ;;
  deconfig|EXPIRE|STOP|RELEASE) ip address flush dev eth0 ;;
esac
env | sed "s/^/$1$reason /" >>@LOG@
"""


class Lan:
    """A gateway's and a guest's namespace, joined; the DHCP server's socket in the gateway's."""

    def __init__(self, gateway: Namespace, guest: Namespace, folder: Path) -> None:
        self.gateway = gateway
        self.guest = guest
        self.log = folder / "log"
        self.log.touch()
        self.script = folder / "script"
        self.script.write_text(SCRIPT.replace("@LOG@", str(self.log)))
        self.script.chmod(0o755)
        self.folder = folder

    def server_socket(self) -> socket.socket:
        sock = self.gateway.open_socket(kind=socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"tap0")
        sock.bind(("0.0.0.0", 67))
        sock.setblocking(False)
        return sock

    def events(self, kind: str) -> list[str]:
        """The lines that the client's script was called with for one kind of event."""
        return [line for line in self.log.read_text().splitlines() if line.startswith(f"{kind} ")]

    async def start(self, *argv: str) -> asyncio.subprocess.Process:
        with (self.folder / "said").open("ab") as said:
            return await asyncio.create_subprocess_exec(
                *self.guest.enter(*argv), stdin=asyncio.subprocess.DEVNULL, stdout=said, stderr=said
            )


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lan]:
    with namespace("gateway") as gateway, namespace("guest") as guest:
        link(gateway, "tap0", "10.0.2.2/24", guest, "eth0", "10.0.2.99/24")
        guest.run("ip", "address", "flush", "dev", "eth0")
        yield Lan(gateway, guest, tmp_path)


@pytest.fixture
async def server(lan: Lan) -> AsyncIterator[DhcpServer]:
    with lan.server_socket() as sock:
        serving = DhcpServer(sock.fileno())
        serving.start()
        yield serving
        serving.close()


async def stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        await process.wait()


async def udhcpc(lan: Lan, *extra: str) -> asyncio.subprocess.Process:
    return await lan.start("busybox", "udhcpc", "-f", "-i", "eth0", "-s", str(lan.script), *extra)


async def test_udhcpc_gets_every_promised_option(lan: Lan, server: DhcpServer) -> None:
    wanted = [flag for name in ("subnet", "router", "dns", "mtu", "lease") for flag in ("-O", name)]
    process = await udhcpc(lan, "-q", *wanted)
    assert await asyncio.wait_for(process.wait(), 15) == 0
    given = dict(line.split(" ", 1)[1].split("=", 1) for line in lan.events("bound") if "=" in line)
    assert {
        key: given[key] for key in ("ip", "subnet", "router", "dns", "mtu", "lease", "serverid", "siaddr")
    } == {
        "ip": "10.0.2.15",
        "subnet": "255.255.255.0",
        "router": "10.0.2.2",
        "dns": "10.0.2.2",
        "mtu": "1500",
        "lease": "86400",
        "serverid": "10.0.2.2",
        "siaddr": "10.0.2.2",
    }
    assert server.answered >= 2
    assert server.errors == 0


async def test_udhcpc_renews_by_unicast_and_releases(lan: Lan, server: DhcpServer) -> None:
    process = await udhcpc(lan, "-R")
    try:
        await until(lambda: lan.events("bound"), "the lease is bound")
        # nsenter executes the client in its place, so the pid is the client's. USR1 renews, USR2 releases.
        os.kill(process.pid, signal.SIGUSR1)
        await until(lambda: lan.events("renew"), "the lease is renewed")
        # Once more at times: an answer that comes while udhcpc's sending socket is open goes to that one.
        assert server.answered >= 3
        os.kill(process.pid, signal.SIGUSR2)
        await until(lambda: server.ignored == 1, "the release arrived")
    finally:
        await stop(process)
    assert server.errors == 0


async def test_clients_in_a_row_with_new_mac_addresses_get_the_same_lease(
    lan: Lan, server: DhcpServer
) -> None:
    for number in range(3):
        lan.guest.run("ip", "link", "set", "eth0", "address", f"52:55:00:00:00:0{number}")
        process = await udhcpc(lan, "-q")
        assert await asyncio.wait_for(process.wait(), 15) == 0
    assert len([line for line in lan.events("bound") if line == "bound ip=10.0.2.15"]) == 3
    assert server.answered >= 6


def written(leases: Path, count: int) -> bool:
    return leases.read_text().count("}") >= count


async def test_dhclient_gets_and_renews_the_lease(lan: Lan, server: DhcpServer) -> None:
    leases = lan.folder / "leases"
    leases.touch()
    argv = ("dhclient", "-d", "-4", "-sf", str(lan.script), "-lf", str(leases), "-cf", "/dev/null", "eth0")
    for round_number, kind in ((1, "BOUND"), (2, "REBOOT")):
        process = await lan.start(*argv, "-pf", str(lan.folder / f"pid{round_number}"))
        try:
            await until(partial(lan.events, kind), f"dhclient reports {kind}", 20)
            # The lease is written once the script has ended; a client stopped before that has none.
            await until(partial(written, leases, round_number), "the lease is written", 20)
        finally:
            await stop(process)
    text = leases.read_text()
    for option in ("fixed-address 10.0.2.15", "option dhcp-lease-time 86400", "option routers 10.0.2.2"):
        assert option in text
    # Selecting, then rebooting by a REQUEST without a DISCOVER before it.
    assert server.answered >= 3
    assert server.errors == 0
    assert re.search(r"option dhcp-server-identifier 10\.0\.2\.2;", text)


async def test_client_with_a_lease_from_elsewhere_is_told_no_and_gets_ours(
    lan: Lan, server: DhcpServer
) -> None:
    process = await udhcpc(lan, "-q", "-r", "192.168.1.50")
    assert await asyncio.wait_for(process.wait(), 15) == 0
    assert "bound ip=10.0.2.15" in lan.events("bound")


def guest_socket(lan: Lan) -> socket.socket:
    sock = lan.guest.open_socket(kind=socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    sock.bind(("0.0.0.0", 68))
    sock.setblocking(False)
    return sock


async def test_garbage_flood_does_not_stop_the_server(lan: Lan, server: DhcpServer) -> None:
    with guest_socket(lan) as sock:
        for number in range(2000):
            sock.sendto(os.urandom(number % 1400), ("255.255.255.255", 67))
            await asyncio.sleep(0)
        await until(lambda: server.ignored > 1000, "the garbage was seen")
        sock.sendto(DISCOVER, ("255.255.255.255", 67))
        reply = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 2048), 5)
    assert decode(reply).options[CLIENT_ID] == b"\x00abc"


async def test_no_descriptor_is_closed_or_leaked(lan: Lan) -> None:
    with lan.server_socket() as sock:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            server = DhcpServer(sock.fileno())
            server.start()
            server.close()
            server.close()
        assert len(os.listdir("/proc/self/fd")) == before
        assert sock.getsockname()[1] == 67


async def test_answer_that_cannot_be_sent_is_counted(lan: Lan) -> None:
    with lan.server_socket() as sock, guest_socket(lan) as guest:
        guest.sendto(DISCOVER, ("255.255.255.255", 67))
        await until(lambda: select.select([sock], [], [], 0)[0], "the request waits in the server's socket")
        lan.gateway.run("ip", "link", "set", "tap0", "down")
        server = DhcpServer(sock.fileno())
        server.start()
        await until(lambda: server.errors, "the failure was counted")
        server.close()
    assert server.answered == 0
