"""The first measurement of a whole tunnel, interleaved in one run: ``sudo .venv/bin/python bench/tunnel.py``.

Guest TCP up and down through a tunnel, with the receive path of our own and with the library's, against the
same guest namespace wired straight to slirp4netns; CPU seconds per GB by process; WebSocket open to DHCP
offer; memory per idle tunnel. Everything runs in namespaces of its own; nothing leaves the machine.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from scapy.layers.dhcp import BOOTP, DHCP  # noqa: E402
from scapy.layers.inet import IP, UDP  # noqa: E402
from scapy.layers.l2 import Ether  # noqa: E402
from support import addresses as at  # noqa: E402
from support import procfs  # noqa: E402
from support.ns import Namespace, namespace  # noqa: E402
from support.nsguest import _open_tap as open_tap  # noqa: E402
from support.proxy import Proxy, run_proxy  # noqa: E402
from support.world import World, world  # noqa: E402
from tapbridge import masked  # noqa: E402

BOOTP_REPLY = b"\x02\x01\x06"  # op, htype, hlen of RFC 2131
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
HANDSHAKE = (
    "GET /l2 HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Protocol: aero-l2-tunnel-v1\r\n\r\n"
)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (proc(5), stat fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def upgrade(host: Namespace, port: int) -> socket.socket:
    """A WebSocket to the proxy after its handshake."""
    connection = host.connect(at.LOOPBACK, port)
    shake_hands(connection)
    return connection


def shake_hands(connection: socket.socket) -> None:
    """Become a WebSocket; what the server sends behind its 101 is left unread."""
    connection.settimeout(20)
    connection.sendall(HANDSHAKE.encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(1)
    assert answer.startswith(b"HTTP/1.1 101"), answer


@dataclass
class Path_:
    """One way from guest to internet: where the guest is, whose CPU time counts."""

    name: str
    guest: Namespace
    processes: dict[str, int]
    rates: dict[str, list[float]] = field(default_factory=dict)
    costs: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def run(self, direction: str, count: int) -> None:
        """One transfer; notes Mbit/s and CPU seconds per GB of each process."""
        before = {name: cpu_seconds(pid) for name, pid in self.processes.items()}
        output = self.guest.run(sys.executable, str(HERE / "traffic.py"), direction, at.WEB, str(count))
        self.rates.setdefault(direction, []).append(count * 8 / 1e6 / float(output))
        for name, pid in self.processes.items():
            cost = (cpu_seconds(pid) - before[name]) / (count / 1e9)
            self.costs.setdefault(direction, {}).setdefault(name, []).append(cost)


def address(guest: Namespace) -> None:
    """The static address of a guest on the card eth0."""
    guest.run("ip", "link", "set", "eth0", "up")
    guest.run("ip", "address", "add", f"{at.GUEST}/24", "dev", "eth0")
    guest.run("ip", "route", "add", "default", "via", at.GATEWAY)


@contextmanager
def through_tunnel(name: str, proxy: Proxy) -> Iterator[Path_]:
    """A guest whose card is a tunnel of ``proxy``."""
    with namespace(name) as guest:
        tap = guest.call(open_tap)
        address(guest)
        connection = upgrade(proxy.world.host, proxy.port)
        fds = (tap, connection.fileno())
        bridge = subprocess.Popen([sys.executable, str(HERE / "tapbridge.py"), *map(str, fds)], pass_fds=fds)
        try:
            yield Path_(name, guest, {"server": proxy.one("server"), "slirp": proxy.with_role("nat")[0]})
        finally:
            bridge.kill()
            bridge.wait()
            connection.close()
            os.close(tap)


@contextmanager
def straight(name: str, host: Namespace) -> Iterator[Path_]:
    """A guest that is wired to slirp4netns directly, without any of us in between."""
    with namespace(name) as guest:
        ready_read, ready_write = os.pipe()
        command = ["slirp4netns", "--configure", "--mtu=1500", "--disable-host-loopback", "--disable-dns"]
        command += [
            "--enable-sandbox",
            "--enable-seccomp",
            f"--ready-fd={ready_write}",
            str(guest.pid),
            "eth0",
        ]
        private = ["unshare", "--mount", "--propagation", "slave"]
        nat = subprocess.Popen(
            host.enter(*private, *command),
            pass_fds=(ready_write,),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ready_write)
        try:
            assert os.read(ready_read, 1) == b"1"
            yield Path_(name, guest, {"slirp": nat.pid})
        finally:
            os.close(ready_read)
            nat.terminate()
            nat.wait()


def dhcp_discover(number: int) -> bytes:
    """A DISCOVER of guest ``number``."""
    mac = f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
    packet = IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67)
    packet /= BOOTP(chaddr=bytes.fromhex(mac.replace(":", "")), xid=number + 1)
    packet /= DHCP(options=[("message-type", "discover"), "end"])
    return bytes(Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / packet)


def offer_times(proxy: Proxy, count: int) -> list[float]:
    """Milliseconds from opening the TCP connection to the DHCP offer, one after the other, all kept."""
    times = []
    with ExitStack() as stack:
        for number in range(count):
            discover = masked(dhcp_discover(number))
            connection = stack.enter_context(proxy.world.host.open_socket())
            began = time.perf_counter()
            connection.connect((at.LOOPBACK, proxy.port))
            shake_hands(connection)
            connection.sendall(discover)
            while BOOTP_REPLY not in connection.recv(4096):
                pass
            times.append((time.perf_counter() - began) * 1000)
    return times


def pss(pids: list[int]) -> dict[int, float]:
    """Proportional set size of each process in MiB (proc(5), smaps_rollup)."""
    sizes = {}
    for pid in pids:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
        sizes[pid] = int(line.split()[1]) / 1024
    return sizes


def idle_memory(proxy: Proxy, count: int) -> tuple[float, float]:
    """MiB of processes per idle tunnel: of all, and of slirp4netns alone."""
    with ExitStack():
        warm = [upgrade(proxy.world.host, proxy.port) for _ in range(4)]
        before = pss(proxy.processes())
        opened = [upgrade(proxy.world.host, proxy.port) for _ in range(count)]
        time.sleep(1.0)
        after = pss(proxy.processes())
        nats = [after[pid] for pid in proxy.with_role("nat") if pid not in before]
        for connection in (*warm, *opened):
            connection.close()
    return (sum(after.values()) - sum(before.values())) / count, sum(nats) / count


def show(paths: list[Path_]) -> None:
    """The table of transfers."""
    print("\n| path | direction | Mbit/s median (min–max) | server CPU s/GB | slirp4netns CPU s/GB |")
    print("|---|---|---|---|---|")
    for direction in ("up", "down"):
        for path in paths:
            rates = path.rates[direction]
            row = [
                path.name,
                direction,
                f"{statistics.median(rates):.0f} ({min(rates):.0f}–{max(rates):.0f})",
            ]
            for process in ("server", "slirp"):
                costs = path.costs[direction].get(process)
                shown = (
                    f"{statistics.median(costs):.1f} ({min(costs):.1f}–{max(costs):.1f})" if costs else "–"
                )
                row.append(shown)
            print(f"| {' | '.join(row)} |")


def quantile(values: list[float], share: float) -> float:
    """The value below which ``share`` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def transfers(built: World, own: Proxy, library: Proxy, rounds: int, megabytes: int) -> list[Path_]:
    """Interleaved: every round takes every path in both directions."""
    with ExitStack() as stack:
        serving = subprocess.Popen(
            built.internet.enter(sys.executable, str(HERE / "traffic.py"), "serve", at.WEB),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        stack.callback(serving.wait)
        stack.callback(serving.kill)
        assert serving.stdout is not None
        serving.stdout.readline()
        paths = [
            stack.enter_context(through_tunnel("own receive path", own)),
            stack.enter_context(through_tunnel("library's receive path", library)),
            stack.enter_context(straight("straight to slirp4netns", built.host)),
        ]
        for path in paths:
            path.run("up", 1_000_000)
        for path in paths:
            path.rates.clear()
            path.costs.clear()
        for _ in range(rounds):
            for direction in ("up", "down"):
                for path in paths:
                    path.run(direction, megabytes * 1_000_000)
    return paths


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--tunnels", type=int, default=50)
    options = parser.parse_args()
    limit = {"AERO_L2_MAX_CONNECTIONS": str(2 * options.tunnels), "AERO_L2_LOG_LEVEL": "warning"}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        built = stack.enter_context(world(Path(folder)))
        own = stack.enter_context(run_proxy(built, "root", limit))
        library = stack.enter_context(run_proxy(built, "root", {**limit, "AERO_L2_RECEIVE_PATH": "library"}))
        show(transfers(built, own, library, options.rounds, options.megabytes))
        offer_times(own, 5)
        times = offer_times(own, options.tunnels)
        print(
            f"\nopen to DHCP offer over {options.tunnels} tunnels: p50 {quantile(times, 0.5):.1f} ms, "
            f"p99 {quantile(times, 0.99):.1f} ms, best {min(times):.1f} ms"
        )
        everything, nat = idle_memory(own, options.tunnels)
        print(f"memory of processes per idle tunnel: {everything:.2f} MiB, of that slirp4netns {nat:.2f} MiB")
        assert procfs.is_alive(own.pid)


if __name__ == "__main__":
    main()
