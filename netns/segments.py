"""A tunnel's namespace as netd keeps it once the server has its side."""

import contextlib
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

from netns import conntrack, details, link, messages, nftables, queues
from netns.children import Child
from netns.jobs import Jobs
from netns.namespace import Interior
from netns.nat import NatDriver
from netns.spec import SegmentSpec
from netns.stopwatch import Stopwatch

_SERVERS = ("tap", "dhcp", "dns_udp", "dns_tcp", "flows", "redirected_udp", "redirected_tcp", "denials")


@dataclass(frozen=True, slots=True)
class Order:
    """A tunnel's namespace that is being made, and how long that takes."""

    identifier: int
    spec: SegmentSpec
    hosts: frozenset[IPv4Network]
    watch: Stopwatch = field(default_factory=Stopwatch)


@dataclass(slots=True)
class Segment:
    """One tunnel's namespace as netd keeps it; everything else belongs to the server."""

    interior: Interior
    hosts: frozenset[IPv4Network] = frozenset()
    adopting: bool = False
    """A thread is inside the namespace; it closes the interior itself if the tunnel is released meanwhile."""
    nat: Child | None = None
    early_losses: int | None = 0
    """What tap1 had lost before the tunnel was ready, of which nothing is the guest's; None until it is."""

    def sync_hosts(self, hosts: frozenset[IPv4Network]) -> None:
        """Bring the firewall's set of host addresses up to date. Raises OSError."""
        if hosts == self.hosts:
            return
        with _borrowed(self.interior.netlink) as netlink:
            nftables.replace_host_set(netlink, hosts)
        self.hosts = hosts

    def counters(self) -> dict[str, int]:
        """Packets by named counter, those that queues lost too. Raises OSError."""
        with _borrowed(self.interior.netlink) as netlink:
            counters = nftables.read_counters(netlink)
        with _borrowed(self.interior.route) as route:
            return counters | queues.read_lost(route, self.early_losses)

    def flows(self, wanted: Sequence[details.Ends] | None = None) -> bytes:
        """The active flows, as `conntrack.pack` writes them; those of `details.read`, where that is asked.

        Raises OSError.
        """
        with _borrowed(self.interior.netlink) as netlink:
            if wanted is not None:
                return details.read(netlink, wanted)
            return conntrack.pack(conntrack.dump(netlink))

    def open_addresses(self, openings: Iterable[tuple[IPv4Address, int]]) -> Literal[True]:
        """Have each address within reach for so many seconds; nothing changes on error. Raises OSError."""
        with _borrowed(self.interior.netlink) as netlink:
            nftables.open_addresses(netlink, openings)
        return True

    def adopt(self, hosts: frozenset[IPv4Network]) -> None:
        """On a thread inside the namespace: open what an earlier netd had, with today's ``hosts``."""
        self.interior.netlink = nftables.open_netlink().detach()
        self.interior.route = queues.open_route().detach()
        with _borrowed(self.interior.netlink) as netlink:
            nftables.replace_host_set(netlink, hosts)
        self.hosts = hosts

    def announce_nat(self, jobs: Jobs, then: Callable[[BaseException | None], None]) -> None:
        """Wake the NAT process up (`link.announce_nat_client`), then call ``then``. Raises OSError."""
        netns = os.dup(self.interior.netns)
        done = jobs.inside(netns, link.announce_nat_client, lambda future: then(future.exception()))
        done.add_done_callback(lambda _: os.close(netns))

    def borrowed_route(self) -> contextlib.AbstractContextManager[socket.socket]:
        """The rtnetlink socket of the namespace. Entering raises OSError."""
        return _borrowed(self.interior.route)

    def handed_over(self) -> None:
        """Close what only the server needs from now on."""
        for name in _SERVERS:
            if getattr(self.interior, name) >= 0:
                os.close(getattr(self.interior, name))
            setattr(self.interior, name, -1)


@contextlib.contextmanager
def _borrowed(fd: int) -> Iterator[socket.socket]:
    """The netlink socket behind ``fd``, which stays open."""
    with socket.socket(fileno=os.dup(fd)) as connection:
        _discard_old_answers(connection)
        connection.settimeout(2.0)
        yield connection


def _discard_old_answers(connection: socket.socket) -> None:
    """What a reading left behind that ended in an error belongs to nobody any more."""
    connection.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            connection.recv(65536)


@dataclass(frozen=True, slots=True)
class NatProcess:
    """A NAT process that was started. ``ready`` and ``handles``, by name, are not the receiver's to close."""

    pid: int
    ready: int
    handles: dict[str, int]

    def descriptors(self, process: int, spec: SegmentSpec) -> list[int]:
        """What the server gets of the tunnel, in order; ``process``: its pidfd."""
        handles = {**self.handles, "process": process}
        names = messages.handle_names(redirects_dns=spec.redirect_dns, audits=spec.audit)
        return [handles[name] for name in names]


def start_nat(
    driver: NatDriver, interior: Interior, spec: SegmentSpec, undo: contextlib.ExitStack
) -> NatProcess:
    """Start a namespace's NAT process; ``undo`` closes its descriptors here. Raises NatError, OSError."""
    exit_read, exit_write = _pipe(undo)
    ready_read, ready_write = _pipe(undo)
    stderr_read, stderr_write = _pipe(undo)
    os.set_blocking(stderr_read, False)
    pid = driver.start(
        netns=interior.netns,
        tap="tap1",
        exit_fd=exit_read,
        ready_fd=ready_write,
        stderr_fd=stderr_write,
        host_loopback=spec.needs_host_loopback,
        max_files=(spec.max_tcp_flows or 16384) + 4 * (spec.max_udp_flows or 4096) + 64,
    )
    handles = {
        "netns": interior.netns,
        "tap": interior.tap,
        "exit_pipe": exit_write,
        "stderr": stderr_read,
        "dhcp": interior.dhcp,
        "dns_udp": interior.dns_udp,
        "dns_tcp": interior.dns_tcp,
        "flows": interior.flows,
        "redirected_udp": interior.redirected_udp,
        "redirected_tcp": interior.redirected_tcp,
        "denials": interior.denials,
    }
    return NatProcess(pid, ready_read, handles)


def _pipe(undo: contextlib.ExitStack) -> tuple[int, int]:
    """A close-on-exec pipe whose both ends are closed by ``undo``."""
    read, write = os.pipe()
    undo.callback(os.close, read)
    undo.callback(os.close, write)
    return read, write
