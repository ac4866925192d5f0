"""The test world itself: what other tests find silent does answer here when it is asked from a place that
may."""

import hashlib
import socket
import subprocess

import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest
from support import addresses as at
from support import procfs, zone
from support.ns import Namespace
from support.sniff import sniffer
from support.wait import wait_until
from support.world import World


def _fetch(where: Namespace, host: str, port: int, request: bytes) -> bytes:
    with where.connect(host, port) as connection:
        connection.settimeout(30)
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("address", [at.LOOPBACK, at.HOST_PUBLIC, at.HOST_PRIVATE, at.OTHER])
def test_services_behind_denied_addresses_answer_the_host(world: World, address: str) -> None:
    service = world.other_services if address == at.OTHER else world.host_services
    before = len(service.reached(f"{address}:{at.SERVICE_PORT}"))
    assert _fetch(world.host, address, at.SERVICE_PORT, b"hello") == b"hello" + at.TRAILER
    wait_until(
        lambda: len(service.reached(f"{address}:{at.SERVICE_PORT}")) == before + 1, "the service reports it"
    )


def test_sniffer_sees_packets_to_a_closed_port(world: World) -> None:
    with sniffer(world.host) as watch:
        with pytest.raises(ConnectionRefusedError):
            world.host.connect(at.LOOPBACK, 4711)
        assert watch.to_port(4711)


def test_internet_serves_the_payload_over_tcp(world: World) -> None:
    head, _, body = _fetch(world.host, at.WEB, at.HTTP_PORT, b"GET /16MiB HTTP/1.0\r\n\r\n").partition(
        b"\r\n\r\n"
    )
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert hashlib.sha256(body).hexdigest() == at.payload_sha256()


def test_name_server_truncates_over_udp_and_not_over_tcp(world: World) -> None:
    question = dns.message.make_query("big.example.test", "TXT")
    with world.host.open_socket(kind=socket.SOCK_DGRAM) as udp:
        udp.setblocking(False)
        assert dns.query.udp(question, at.NAMESERVER, timeout=10, sock=udp).flags & dns.flags.TC
    with world.host.connect(at.NAMESERVER, 53) as tcp:
        answer = dns.query.tcp(question, at.NAMESERVER, timeout=10, sock=tcp)
    assert len(answer.answer[0]) == len(zone.BIG_TEXT)
    assert answer.rcode() == dns.rcode.NOERROR


def test_nothing_leaves_the_world(world: World) -> None:
    """No interface of the world leads out: each is a loopback or one end of a pair whose other end is
    inside, too."""
    for where, expected in (
        (world.host, "lan0 lo wan0"),
        (world.internet, "host0 lo"),
        (world.other, "lan0 lo"),
    ):
        lines = where.run("ip", "-o", "link").splitlines()
        assert sorted(line.split(": ")[1].partition("@")[0] for line in lines) == expected.split()


def test_namespaces_are_found_by_thread_and_by_descriptor(world: World) -> None:
    assert {
        procfs.link_of(str(world.host.path)),
        procfs.link_of("/proc/self/ns/net"),
    } <= procfs.network_namespaces()
    with subprocess.Popen(
        ["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"\n")
        holder.stdin.flush()
        holder.stdout.readline()
        name = procfs.link_of(f"/proc/{holder.pid}/ns/net")
        assert name in procfs.network_namespaces()
        holder.stdin.close()
    wait_until(lambda: name not in procfs.network_namespaces(), "the namespace is gone")
