"""Guests whose network stack is Linux's: on a tunnel, or wired straight to slirp4netns."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from support.ns import Namespace, namespace
from support.nsguest import open_tap
from support.wait import wait_until

from bench import wire
from bench.figures import Table
from bench.lab import Lab, Running, Server, card


@dataclass(frozen=True)
class Guest:
    """A namespace with a card. processes: ``server``, ``netd``, ``nat``, ``card``: those that can be seen."""

    where: Namespace
    processes: dict[str, int] = field(default_factory=dict)

    def traffic(self, what: str, peer: str, *words: float) -> Running:
        """`bench.traffic` on it, ready to be started."""
        return Running(self.where.enter(sys.executable, "-m", "bench.traffic", what, peer, *map(str, words)))


def _address(guest: Namespace, mac: str, address: str, router: str) -> None:
    guest.run("ip", "link", "set", "eth0", "address", mac, "up")
    guest.run("ip", "address", "add", address, "dev", "eth0")
    guest.run("ip", "route", "add", "default", "via", router)


@contextmanager
def on_tunnel(server: Server) -> Iterator[Guest]:
    """A guest on a tunnel of its own, with the lease that the server gives."""
    known = server.nats()
    with namespace("guest") as where, ExitStack() as stack:
        connection, given = server.open()
        stack.enter_context(connection)
        tap = where.call(open_tap)
        _address(where, wire.mac_of(0).hex(":"), str(given.interface), str(given.router))
        fds = (tap, connection.fileno())
        bridge = subprocess.Popen([card(), *map(str, fds)], pass_fds=fds, stdin=subprocess.DEVNULL)
        processes = {"card": bridge.pid}
        if server.proxy is not None:
            processes |= {"server": server.proxy.one("server"), "netd": server.proxy.one("netd")}
            processes["nat"] = _started(server, known)
        try:
            yield Guest(where, processes)
        finally:
            bridge.kill()
            bridge.wait(10)
            os.close(tap)


def _started(server: Server, known: set[int]) -> int:
    """The NAT process that is new; at its start it has a child for a moment, which opens the TAP."""

    def new() -> list[int]:
        found = list(server.nats() - known)
        return found if len(found) == 1 else []

    return wait_until(new, "one NAT process more", 30)[0]


@contextmanager
def straight(host: Namespace) -> Iterator[Guest]:
    """A guest that is wired to slirp4netns directly, with nothing of ours in between."""
    with namespace("guest") as where:
        ready_read, ready_write = os.pipe()
        options = ["--configure", "--mtu=1500", "--disable-host-loopback", "--disable-dns"]
        options += ["--enable-sandbox", "--enable-seccomp", f"--ready-fd={ready_write}"]
        private = ["unshare", "--mount", "--propagation", "slave", "slirp4netns"]
        nat = subprocess.Popen(
            host.enter(*private, *options, str(where.pid), "eth0"),
            pass_fds=(ready_write,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ready_write)
        try:
            assert os.read(ready_read, 1) == b"1", "slirp4netns did not start"
            yield Guest(where, {"nat": nat.pid})
        finally:
            os.close(ready_read)
            nat.terminate()
            nat.wait(10)


@contextmanager
def on_each_path(
    lab: Lab, kinds: Iterable[str], measure: Callable[[str, Guest], dict[str, float]]
) -> Iterator[Callable[[Table], None]]:
    """A guest on a tunnel of each server and, where the world is ours, one on the straight wire.

    Each call measures every kind on all of them in turn, and adds the rows (path, kind).
    """
    kinds = tuple(kinds)
    with ExitStack() as stack:
        paths = [(server.name, stack.enter_context(on_tunnel(server))) for server in lab.servers]
        if lab.world is not None:
            paths.append(("straight wire", stack.enter_context(straight(lab.world.host))))

        def once(into: Table) -> None:
            for kind in kinds:
                for name, guest in paths:
                    into.add((name, kind), measure(kind, guest))

        yield once
