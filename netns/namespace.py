"""Making and entering tunnels' network namespaces, each on a thread that does nothing else.

setns is per thread, and without privileges on the host a thread that left the host's namespace can never
go back. So namespace work runs on threads of its own, parked in one empty namespace between jobs, and
processes that belong to the host's namespace are started elsewhere.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from ipaddress import IPv4Network
from typing import TypeVar

from netns import conntrack, denials, features, link, nftables, queues, ruleset, shaping, tap
from netns.errors import RulesRefused, SegmentError, describe_os_error
from netns.spec import GATEWAY, REDIRECTED_DNS_PORT, SegmentSpec
from netns.stopwatch import Stopwatch
from netns.syscalls import Namespace, setns, unshare

Result = TypeVar("Result")
_LISTEN_BACKLOG = 64


@dataclass(slots=True)
class Interior:
    """File descriptors of one namespace and of what was opened inside it; owned, all close-on-exec."""

    netns: int = -1
    tap: int = -1
    dhcp: int = -1
    dns_udp: int = -1
    dns_tcp: int = -1
    flows: int = -1
    redirected_udp: int = -1
    redirected_tcp: int = -1
    denials: int = -1
    netlink: int = -1
    route: int = -1

    def close(self) -> None:
        """Close what is open; idempotent. The namespace goes when its last descriptor does."""
        for field in fields(self):
            fd = getattr(self, field.name)
            setattr(self, field.name, -1)
            if fd >= 0:
                os.close(fd)


class Workshop:
    """Threads that make and enter namespaces. Jobs run in order of arrival, at most ``threads`` that make one
    at a time. One thread more enters those that there are: that takes a millisecond, and tunnels that are
    still to be made are not what one that stands waits for."""

    def __init__(self, threads: int = 2) -> None:
        unshared = ThreadPoolExecutor(1, thread_name_prefix="netns-first")
        self._parking = unshared.submit(_make_parking).result()
        unshared.shutdown()
        self._makers = self._parked(threads, "netns")
        self._visitor = self._parked(1, "netns-inside")

    def _parked(self, threads: int, name: str) -> ThreadPoolExecutor:
        pool = ThreadPoolExecutor(
            threads, thread_name_prefix=name, initializer=setns, initargs=(self._parking, Namespace.NET)
        )
        started = threading.Barrier(threads)  # all at once, so that their number never changes
        for waiting in [pool.submit(started.wait) for _ in range(threads)]:
            waiting.result()
        return pool

    def submit(self, job: Callable[[], Result], begun: Callable[[], None] = lambda: None) -> Future[Result]:
        """Run ``job`` in a fresh namespace of its own, which goes away unless the job keeps its fd.

        ``begun`` is called on the thread when its turn has come.
        """

        def enter() -> None:
            begun()
            unshare(Namespace.NET)

        return self._makers.submit(self._run, enter, job)

    def submit_inside(self, netns: int, job: Callable[[], Result]) -> Future[Result]:
        """Run ``job`` in the namespace behind the descriptor ``netns``."""
        return self._visitor.submit(self._run, lambda: setns(netns, Namespace.NET), job)

    def close(self) -> None:
        """Wait for the jobs that were submitted and end the threads."""
        self._makers.shutdown()
        self._visitor.shutdown()
        os.close(self._parking)

    def _run(self, enter: Callable[[], None], job: Callable[[], Result]) -> Result:
        try:
            enter()
        except OSError as error:
            raise SegmentError(describe_os_error("cannot make a network namespace", error)) from error
        try:
            return job()
        finally:
            setns(self._parking, Namespace.NET)


def make_interior(
    spec: SegmentSpec,
    nft: str,
    hosts: frozenset[IPv4Network],
    allow_ping: bool,
    watch: Stopwatch | None = None,
) -> Interior:
    """Build a tunnel's LAN in the calling thread's fresh namespace: TAPs, rules, addresses, sockets.

    Rules and interfaces are made side by side; no frame can come before both stand, since neither TAP has
    left this process. Raises SegmentError, with everything undone.
    """
    interior, watch = Interior(), watch or Stopwatch()
    with _closed_on_error(interior):
        try:
            interior.netns = _own_namespace()
            watch.step()
            interior.tap = tap.open_tap("tap0")
            tap.make_tap("tap1")
            watch.step()
            with _rules(nft, ruleset.render(spec, hosts, allow_ping)):
                link.configure_links()
                interior.route = _route_socket(spec)
            watch.step()
            interior.dhcp = _dhcp_socket()
            interior.dns_udp = _dns_socket(socket.SOCK_DGRAM)
            interior.dns_tcp = _dns_socket(socket.SOCK_STREAM)
            interior.flows = conntrack.open_events(audit=spec.audit)
            if spec.audit:
                interior.denials = denials.open_log()
            if spec.redirect_dns:
                interior.redirected_udp = _dns_socket(socket.SOCK_DGRAM, REDIRECTED_DNS_PORT)
                interior.redirected_tcp = _dns_socket(socket.SOCK_STREAM, REDIRECTED_DNS_PORT)
            interior.netlink = nftables.open_netlink().detach()
            watch.step()
        except OSError as error:
            raise SegmentError(describe_os_error("cannot make the tunnel's namespace", error)) from error
    return interior


@contextlib.contextmanager
def _rules(nft: str, script: str) -> Iterator[None]:
    """`nftables.applied_rules`, whose refusal names what the kernel lacks. Raises SegmentError."""
    try:
        with nftables.applied_rules(nft, script):
            yield
    except RulesRefused as refusal:
        raise features.explained(nft, refusal) from refusal


@contextlib.contextmanager
def _closed_on_error(interior: Interior) -> Iterator[None]:
    try:
        yield
    except BaseException:
        interior.close()
        raise


def _make_parking() -> int:
    unshare(Namespace.NET)
    return _own_namespace()


def _own_namespace() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _route_socket(spec: SegmentSpec) -> int:
    """Limit both interfaces, if at all; a socket that tells what they lost. Raises SegmentError, OSError."""
    with queues.open_route() as route:
        if spec.max_bytes_per_second:
            indices = (socket.if_nametoindex("tap0"), socket.if_nametoindex("tap1"))
            shaping.limit(route, indices, spec.max_bytes_per_second, spec.bytes_burst)
        return route.detach()


def _dhcp_socket() -> int:
    """UDP port 67 of every address on tap0: a client without an address sends to 255.255.255.255."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"tap0")
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        listener.bind(("0.0.0.0", 67))  # of the namespace, and on tap0 only
        return listener.detach()


def _dns_socket(kind: socket.SocketKind, port: int = 53) -> int:
    with socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"tap0")
        listener.bind((str(GATEWAY), port))
        if kind == socket.SOCK_STREAM:
            listener.listen(_LISTEN_BACKLOG)
        return listener.detach()
