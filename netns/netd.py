"""netd: the one process that holds capabilities. It makes and unmakes tunnels' namespaces for the server.

Root of a user namespace, with four capabilities and no privilege on the host. It reads typed values from a
socket, checks each, renders rules and command lines itself, and hands file descriptors over. Its main
thread never leaves the host's network namespace; namespaces are the business of `netns.namespace`.
"""

import argparse
import contextlib
import functools
import os
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from netns import files, messages, pings
from netns.announcing import Announcer
from netns.becoming import become_netd, hide
from netns.children import Child, Children, tell_overdue
from netns.errors import MessageError, NetnsError, SegmentError, describe_os_error
from netns.hosts import HostMonitor
from netns.jobs import Jobs
from netns.lines import log
from netns.messages import Adopt, Create, Release
from netns.namespace import Interior, make_interior
from netns.nat import NatDriver, load_driver
from netns.programs import find_program
from netns.segments import Order, Segment, start_nat
from netns.spec import SegmentSpec
from netns.tcpmemory import TcpMemoryWatch
from netns.watch import HealthWatch

READY_TIMEOUT_S = 10.0
EXIT_TIMEOUT_S = 2.0
SICK_END_S = 0.5
RELEASED_END_S = 10.0
MAX_IN_FLIGHT = 1024
MAX_SEGMENTS = 65_536
_T = TypeVar("_T")


class Netd:
    """The event loop of one netd: a request in, a namespace made, its descriptors out."""

    def __init__(self, server: socket.socket, driver: NatDriver, search_path: str, tcp_memory: int) -> None:
        self._server = server
        self._driver = driver
        self._search_path = search_path
        self._selector = selectors.DefaultSelector()
        self._jobs = Jobs()
        self._segments: dict[int, Segment] = {}
        self._making: dict[int, Future[Interior]] = {}
        self._children = Children(self._selector, tell_overdue)
        self._health = HealthWatch(self._nat_sick)
        self._memory = TcpMemoryWatch(tcp_memory, self._segments, self._tell, self._nat_sick)
        self._announcer = Announcer(self._jobs, lambda identifier: self._tell(messages.NatReady(identifier)))
        self._hosts = HostMonitor()
        self._running = True

    def run(self) -> None:
        """Serve until the server goes; then end every NAT process and return."""
        for fd, handler in (
            (self._server.fileno(), self._serve),
            (self._jobs.fileno(), self._jobs.run_finished),
            (self._hosts.fileno(), lambda: self._hosts.listen(time.monotonic())),
        ):
            self._selector.register(fd, selectors.EVENT_READ, handler)
        self._tell(messages.HostAddresses(self._hosts.addresses))
        while self._running:
            self._turn()
        self._end()

    def _turn(self, at_most_s: float | None = None) -> None:
        now = time.monotonic()
        parts = (self._children, self._health, self._memory, self._hosts, self._announcer)
        waits = [part.next_timeout(now) for part in parts]
        at_most = min((wait for wait in (at_most_s, *waits) if wait is not None), default=None)
        for key, _ in self._selector.select(at_most):
            key.data()
        now = time.monotonic()
        for look in (self._children.kill_overdue, self._health.look, self._memory.look, self._announcer.look):
            look(now)
        if self._hosts.look(now):
            self._sync_all()

    def _tell(self, answer: messages.Answer, descriptors: Sequence[int] = ()) -> None:
        try:
            messages.send(self._server, answer, descriptors)
        except OSError:
            self._running = False  # the server is gone; its end of the socket says so too

    def _serve(self) -> None:
        """One request of the server, which may be anything."""
        try:
            data, descriptors = messages.receive(self._server)
        except MessageError as error:
            log("error", "netd refuses a request", text=str(error))
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            files.close_all(descriptors)
            self._running = False
            return
        try:
            self._dispatch(messages.decode_request(data), descriptors)
        except (MessageError, OSError) as error:
            log("error", "netd refuses a request", text=str(error))
        finally:
            files.close_all(descriptors)

    def _dispatch(self, request: messages.Request, descriptors: list[int]) -> None:
        """Carry one request out. ``descriptors`` are closed by the caller."""
        match request:
            case Create(id, spec):
                self._create(id, spec)
            case Adopt(id):
                if len(descriptors) != 2 or self._known(id) or len(self._segments) >= MAX_SEGMENTS:
                    raise MessageError("adopt: a namespace, a process and a new id")
                nat = self._children.adopt(descriptors[1], parent=os.getppid(), tunnel=id)
                self._adopt(id, Interior(netns=os.dup(descriptors[0])), nat)
            case Release(id):
                self._release(id)
            case messages.ReadCounters(id, number):
                counters = self._inside(id, "read the counters of", Segment.counters)
                self._tell(messages.Counted(id, number, counters))
            case messages.ListFlows(id, number, wanted):
                with files.file_of(self._inside(id, "list the flows of", lambda s: s.flows(wanted))) as file:
                    self._tell(messages.Listed(id, number), file)
            case messages.OpenAddresses(id, number, openings):
                done = self._inside(id, "open addresses in", lambda s: s.open_addresses(openings))
                self._tell(messages.Opened(id, number, done is True))

    def _known(self, identifier: int) -> bool:
        return identifier in self._segments or identifier in self._making

    def _create(self, identifier: int, spec: SegmentSpec) -> None:
        if self._known(identifier):
            raise MessageError(f"create: id {identifier} is in use")
        if len(self._making) >= MAX_IN_FLIGHT:
            self._tell(messages.Failed(identifier, "too many tunnels are being set up at once; try again"))
            return
        try:
            self._driver.prepare()
            nft = find_program("nft", "nftables", self._search_path)
        except (RuntimeError, NetnsError, OSError) as error:
            self._tell(messages.Failed(identifier, str(error)))
            return
        order = Order(identifier, spec, self._hosts.networks)
        ping = pings.ping_permitted()  # here: a thread of the workshop is in no namespace of the host's
        self._making[identifier] = self._jobs.make(
            lambda: make_interior(spec, nft, order.hosts, ping, order.watch),
            lambda future: self._created(order, future),
            order.watch.step,
        )

    def _created(self, order: Order, future: Future[Interior]) -> None:
        identifier = order.identifier
        wanted = self._making.get(identifier) is future
        if wanted:
            del self._making[identifier]
        if future.cancelled():
            return
        try:
            interior = future.result()
        except (SegmentError, OSError) as error:
            self._tell(messages.Failed(identifier, str(error)))
            return
        if not wanted:
            interior.close()
            return
        segment = Segment(interior, order.hosts)
        try:
            segment.sync_hosts(self._hosts.networks)
            self._hand_over(order, segment)
        except (RuntimeError, OSError) as error:
            interior.close()
            reason = describe_os_error("cannot start the NAT", error) if isinstance(error, OSError) else error
            self._tell(messages.Failed(identifier, str(reason)))

    def _hand_over(self, order: Order, segment: Segment) -> None:
        """Start the NAT process and give the server its side of everything. Raises NatError, OSError."""
        identifier, watch = order.identifier, order.watch
        with contextlib.ExitStack() as undo:
            watch.resume()
            nat = start_nat(self._driver, segment.interior, order.spec, undo)
            watch.step()
            deadline = time.monotonic() + READY_TIMEOUT_S
            ready = functools.partial(self._nat_ready, identifier, segment)
            segment.nat = self._children.watch(nat.pid, os.dup(nat.ready), deadline, ready, identifier)
            self._segments[identifier] = segment
            made = messages.Made(identifier, watch.took)
            self._tell(made, nat.descriptors(segment.nat.pidfd, order.spec))
        segment.handed_over()

    def _nat_ready(self, identifier: int, segment: Segment) -> None:
        """The NAT process has its TAP: wake it up, so that the first packet is not the guest's."""
        if self._segments.get(identifier) is not segment:
            return
        self._health.add(identifier, segment, time.monotonic())
        self._announcer.announce(identifier, segment)

    def _release(self, identifier: int) -> None:
        """The server closed the exit pipe, so the NAT process is ending; let go of the namespace."""
        making = self._making.pop(identifier, None)
        if making is not None:
            making.cancel()  # clients that come and go must not fill the queue with what has not begun
        segment = self._segments.pop(identifier, None)
        if segment is not None and segment.nat is not None:
            self._children.expect_end(segment.nat, RELEASED_END_S, "it did not end with its tunnel")
        if segment is not None and not segment.adopting:
            segment.interior.close()

    def _nat_sick(self, identifier: int, nat: Child, reason: str) -> None:
        """A NAT process is given up: the server hears why before it hears of its end."""
        self._tell(messages.NatSick(identifier, reason))
        self._children.expect_end(nat, SICK_END_S, reason)

    def _adopt(self, identifier: int, interior: Interior, nat: Child | None) -> None:
        segment = self._segments[identifier] = Segment(interior, adopting=True, nat=nat)
        hosts = self._hosts.networks
        self._jobs.inside(
            interior.netns,
            lambda: segment.adopt(hosts),
            lambda future: self._adopted(identifier, segment, future),
        )

    def _adopted(self, identifier: int, segment: Segment, future: Future[None]) -> None:
        segment.adopting = False
        error = future.exception()
        released = self._segments.get(identifier) is not segment
        if error is None and not released:
            self._sync(identifier)
            self._health.add(identifier, segment, time.monotonic())
        if error is not None:
            log("error", "tunnel not adopted", session=identifier, text=str(error))
            self._children.forget(segment.nat)
        if error is not None or released:
            segment.interior.close()
        if error is not None and not released:
            del self._segments[identifier]

    def _inside(self, identifier: int, what: str, act: Callable[[Segment], _T]) -> _T | None:
        """Do something with a namespace that is ours; None where it is not, or where that fails."""
        segment = self._segments.get(identifier)
        if segment is None or segment.adopting:
            return None
        try:
            return act(segment)
        except OSError as error:
            log("error", "namespace not served", session=identifier, text=f"cannot {what} it: {error}")
            return None

    def _sync_all(self) -> None:
        """Bring every tunnel up to date with what is the host; nothing happens where that is so."""
        self._tell(messages.HostAddresses(self._hosts.addresses))
        for identifier in self._segments:
            self._sync(identifier)

    def _sync(self, identifier: int) -> None:
        hosts = self._hosts.networks
        self._inside(identifier, "update the host's addresses in", lambda s: s.sync_hosts(hosts))

    def _end(self) -> None:
        """Without a server every tunnel is over: its exit pipe is closed already."""
        for identifier in list(self._segments):
            self._release(identifier)
        until = time.monotonic() + EXIT_TIMEOUT_S
        while self._children and time.monotonic() < until:
            self._turn(at_most_s=0.1)
        self._children.kill_all()


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m netns.netd``, started by the supervisor only."""
    parser = argparse.ArgumentParser(prog="netns.netd")
    parser.add_argument("--socket-fd", type=int, required=True)
    parser.add_argument("--driver", required=True)
    parser.add_argument("--search-path", required=True)
    parser.add_argument("--max-tcp-memory", type=int, default=0)
    parser.add_argument("--hide", default="", help="the admin socket, see netns.becoming")
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--log-style", default="json")
    options = parser.parse_args(arguments)
    become_netd(options.log_level, options.log_style)
    hide(options.hide)
    server = socket.socket(fileno=options.socket_fd)
    os.set_inheritable(options.socket_fd, False)
    driver = load_driver(options.driver, options.search_path)
    Netd(server, driver, options.search_path, options.max_tcp_memory).run()


if __name__ == "__main__":
    main()
