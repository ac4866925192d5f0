"""From which port a name server is asked, by the kernel's own judgement of what is free."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.ns import Namespace, namespace

from aero_l2.services.dns.sourceports import PAUSE_S, SourcePorts

GIVEN = range(60000, 60002)
SERVER = ("127.0.0.1", 53)


@pytest.fixture
def host() -> Iterator[Namespace]:
    """A host whose kernel gives two ports."""
    with namespace("host") as made:
        made.run("sysctl", "-qw", f"net.ipv4.ip_local_port_range={GIVEN[0]} {GIVEN[-1]}")
        yield made


def asked_from(host: Namespace, ports: SourcePorts) -> int:
    """The port of one question's socket."""
    with host.open_socket(kind=socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        host.call(lambda: ports.connect(sock, SERVER))
        assert sock.getpeername() == SERVER
        return int(sock.getsockname()[1])


def test_kernel_that_has_no_port_left_is_not_asked_again_at_once(host: Namespace) -> None:
    """It takes milliseconds to find none among all, and a guest may ask hundreds of names a second."""
    now = [100.0]
    ports = SourcePorts(lambda: now[0])
    assert asked_from(host, ports) in GIVEN
    with ExitStack() as taken:
        for port in GIVEN:
            taken.enter_context(host.open_socket(kind=socket.SOCK_DGRAM)).bind(("", port))
        assert asked_from(host, ports) not in GIVEN
    now[0] += PAUSE_S / 2
    assert asked_from(host, ports) not in GIVEN
    now[0] += PAUSE_S / 2
    assert asked_from(host, ports) in GIVEN


class SentTo(socket.socket):
    """Somebody sends to it as soon as it is bound."""

    stranger: socket.socket

    def bind(self, address: object) -> None:
        super().bind(address)  # type: ignore[arg-type]
        self.stranger.sendto(b"forged", (SERVER[0], self.getsockname()[1]))


def test_what_a_stranger_sends_before_the_socket_is_connected_is_thrown_away(host: Namespace) -> None:
    with ExitStack() as stack:
        opened = [stack.enter_context(host.open_socket(kind=socket.SOCK_DGRAM)) for _ in GIVEN]
        for port, taken in zip(GIVEN, opened, strict=True):
            taken.bind(("", port))
        SentTo.stranger = opened[0]
        sock = stack.enter_context(host.call(lambda: SentTo(socket.AF_INET, socket.SOCK_DGRAM)))
        sock.setblocking(False)
        host.call(lambda: SourcePorts().connect(sock, SERVER))
        with pytest.raises(BlockingIOError):
            sock.recv(1)
