"""The closed world that the proxy is tested in: a host, an internet and a third machine, as namespaces.

    internet 93.184.216.0/24, 151.101.1.69 … ── 45.33.32.0/24 ── host ── 192.168.77.0/24 ── other

The host's default route leads to the internet namespace and there it ends: no packet leaves the machine.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support import addresses as at
from support.ns import Namespace, link, namespace
from support.wait import wait_until

_SERVERS = Path(__file__).with_name("servers.py")
Service = tuple[str, str, int]  # kind, address, port; kinds are those of servers.py


@dataclass(frozen=True)
class Event:
    """Something reached a service: its kind, both ends as ``address:port``, the first 256 bytes of a
    datagram."""

    kind: str
    local: str
    peer: str
    data: bytes


@dataclass
class Services:
    """A process that serves in one namespace, and what reached it so far."""

    process: subprocess.Popen[str]
    events: list[Event] = field(default_factory=list)

    def reached(self, local: str) -> list[Event]:
        """Events of the service at ``address:port``."""
        return [event for event in list(self.events) if event.local == local]

    def with_data(self, data: bytes) -> list[Event]:
        """Datagrams whose payload contains ``data``."""
        return [event for event in list(self.events) if data in event.data]


@contextmanager
def serve(where: Namespace, services: list[Service]) -> Iterator[Services]:
    """Run services in a namespace; ready when the block begins, gone when it ends."""
    process = subprocess.Popen(
        where.enter(sys.executable, str(_SERVERS), json.dumps(services)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    served = Services(process)
    ready = threading.Event()

    def collect() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "ready\n":
                ready.set()
                continue
            event = json.loads(line)
            served.events.append(
                Event(event["kind"], event["local"], event["peer"], bytes.fromhex(event["data"]))
            )

    reader = threading.Thread(target=collect, name=f"events-{where.name}")
    reader.start()
    try:
        wait_until(lambda: ready.is_set() or process.poll() is not None, f"{where.name} serves", 30)
        assert process.poll() is None, f"the services of {where.name} did not start"
        yield served
    finally:
        process.stdin.close()
        process.wait(10)
        reader.join()
        process.stdout.close()


@dataclass(frozen=True)
class World:
    """The namespaces and what is served in them."""

    host: Namespace
    internet: Namespace
    other: Namespace
    host_services: Services
    internet_services: Services
    other_services: Services
    resolv_conf: Path

    def denied_services(self) -> list[Services]:
        """Services that no guest may ever reach."""
        return [self.host_services, self.other_services]


def _internet_services() -> list[Service]:
    public: list[Service] = [
        (kind, address, port)
        for address in (at.WEB, at.CDN)
        for kind, port in (
            ("http", at.HTTP_PORT),
            ("tcp-echo", at.ECHO_PORT),
            ("udp-echo", at.ECHO_PORT),
            ("discard", at.DISCARD_PORT),
            ("tftp", at.TFTP_PORT),
        )
    ]
    denied = [
        (kind, address, at.SERVICE_PORT)
        for address in (at.PRIVATE_SITE, at.METADATA)
        for kind in ("tcp-echo", "udp-echo")
    ]
    return [*public, *denied, ("dns", at.NAMESERVER, 53)]


def _echo_on(*hosts: str) -> list[Service]:
    return [(kind, address, at.SERVICE_PORT) for address in hosts for kind in ("tcp-echo", "udp-echo")]


def _wire(host: Namespace, internet: Namespace, other: Namespace) -> None:
    for address in (at.WEB, at.CDN, at.NAMESERVER, at.PRIVATE_SITE, at.METADATA):
        internet.run("ip", "address", "add", f"{address}/32", "dev", "lo")
    link(host, "wan0", f"{at.HOST_PUBLIC}/24", internet, "host0", f"{at.ROUTER}/24")
    link(host, "lan0", f"{at.HOST_PRIVATE}/24", other, "lan0", f"{at.OTHER}/24")
    host.run("ip", "route", "add", "default", "via", at.ROUTER)


@contextmanager
def world(directory: Path) -> Iterator[World]:
    """Build the world; ``directory`` gets the resolv.conf that points at its name server."""
    with ExitStack() as stack:
        host, internet, other = (stack.enter_context(namespace(n)) for n in ("host", "internet", "other"))
        _wire(host, internet, other)
        resolv_conf = directory / "resolv.conf"
        resolv_conf.write_text(f"nameserver {at.NAMESERVER}\n")
        resolv_conf.chmod(0o644)
        on_host: list[Service] = [
            *_echo_on(at.LOOPBACK, at.HOST_PUBLIC, at.HOST_PRIVATE),
            ("http", at.LOOPBACK, at.LOCAL_HTTP_PORT),
        ]
        yield World(
            host,
            internet,
            other,
            stack.enter_context(serve(host, on_host)),
            stack.enter_context(serve(internet, _internet_services())),
            stack.enter_context(serve(other, _echo_on(at.OTHER))),
            resolv_conf,
        )
