"""The steps of a run: each does one thing, and says what it found or raises StepFailed."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final

from aero_l2.client import Tunnel
from aero_l2.probe import dhcp, http, names
from aero_l2.probe.guest import Guest, refused_by
from aero_l2.probe.names import Answer
from aero_l2.probe.outcome import Fact, Facts, Kind, StepFailed
from aero_l2.probe.packets import BROADCAST, Datagram, Unreachable
from aero_l2.probe.stack import Ping
from aero_l2.probe.streams import connected
from aero_l2.probe.targets import ProbeTarget, Scheme
from aero_l2.services.dhcp import codec
from aero_l2.services.dhcp.codec import DhcpMessage

ECHO_BYTES: Final = 512
_SMALL: Final = 32


@dataclass(frozen=True, slots=True)
class Done:
    """A step that went well: for people and for programs."""

    text: str
    facts: Facts = field(default_factory=dict)


async def ping(tunnel: Tunnel, timeout_s: float) -> Done:
    """A PING of the protocol, and its PONG."""
    try:
        rtt_s = await tunnel.ping(timeout_s)
    except TimeoutError:
        raise StepFailed(Kind.NO_PONG, f"no PONG within {timeout_s:g} s") from None
    return Done("the server answers a PING", {"rtt_ms": round(rtt_s * 1000, 3)})


@dataclass(slots=True)
class Progress:
    """What to say where the time is up."""

    said: str


async def lease(guest: Guest, progress: Progress) -> tuple[dhcp.Lease, Done]:
    """DISCOVER, OFFER, REQUEST, ACK; the stack has the address afterwards."""
    mac, xid = guest.stack.mac, secrets.randbits(32)
    with guest.socket(dhcp.CLIENT_PORT) as socket:

        async def ask(message: bytes, *kinds: int) -> DhcpMessage:
            def send() -> None:
                guest.stack.send_datagram(socket, BROADCAST, dhcp.SERVER_PORT, message)

            def look() -> DhcpMessage | None:
                while socket.received:
                    came = socket.received.popleft()
                    answer = dhcp.read(came.data, mac, xid) if came.source_port == dhcp.SERVER_PORT else None
                    if answer is not None and answer.kind in kinds:
                        return answer
                return None

            return await guest.asking(send, look)

        progress.said = "no answer to DHCPDISCOVER"
        offer = await ask(dhcp.discover(mac, xid), codec.OFFER)
        progress.said = f"{offer.yiaddr} was offered, but there is no answer to DHCPREQUEST"
        answer = await ask(dhcp.request(mac, xid, offer), codec.ACK, codec.NAK)
        if answer.kind == codec.NAK:
            raise StepFailed(Kind.NO_LEASE, dhcp.why_refused(answer))
    try:
        given = dhcp.lease_of(answer)
    except dhcp.BadLease as fault:
        raise StepFailed(Kind.NO_LEASE, str(fault)) from None
    guest.stack.configure(given.interface, given.router, given.mtu)
    return given, Done(str(given), given.facts())


async def arp(guest: Guest, router: IPv4Address) -> Done:
    """Who has the gateway's address?"""
    mac = (await guest.arp(router)).hex(":")
    return Done(f"{router} is at {mac}", {"address": str(router), "mac": mac})


async def echo(guest: Guest, router: IPv4Address) -> Done:
    """An ICMP echo to the gateway."""
    identifier, data = secrets.randbits(16), secrets.token_bytes(_SMALL)
    sent: list[Ping] = []
    try:

        def answered() -> Ping | None:
            ping = sent[0]
            return ping if ping.reply is not None or ping.error is not None else None

        answer = await guest.asking(lambda: sent.append(guest.stack.ping(router, identifier, data)), answered)
    finally:
        guest.stack.forget_ping(identifier)
    if answer.error is not None:
        raise refused_by(answer.error, f"ping of {router}")
    if answer.reply != data:
        raise StepFailed(Kind.WRONG_ANSWER, f"{router} answers ping with other data than was sent")
    return Done(f"{router} answers ping", {"address": str(router)})


async def look_up(guest: Guest, server: IPv4Address, name: str, *, lenient: bool) -> Answer:
    """A name's addresses; lenient: that it has none, or does not exist, is an answer too."""
    answer = await names.ask(guest, server, name)
    if not lenient and not answer.exists:
        raise names.denied(name, server)
    if not lenient and not answer.addresses:
        raise names.without_address(name, server)
    return answer


async def dns(guest: Guest, server: IPv4Address, name: str, *, lenient: bool) -> Done:
    """A name's addresses, over UDP."""
    answer = await look_up(guest, server, name, lenient=lenient)
    shown = [str(address) for address in answer.addresses]
    rcode = "NOERROR" if answer.exists else "NXDOMAIN"
    said = f"{name} is {' '.join(shown)}" if shown else f"{rcode} without an address for {name}"
    return Done(
        f"{server} answers: {said}",
        {"name": name, "server": str(server), "rcode": rcode, "addresses": shown},
    )


async def dns_over_tcp(guest: Guest, server: IPv4Address, name: str) -> Done:
    """What every server proves by itself: a TCP connection to its DNS, and data both ways."""
    await names.ask_tcp(guest, server, name)
    return Done(f"{server}:{names.PORT} answers DNS over TCP", {"address": str(server), "port": names.PORT})


async def reach(guest: Guest, target: ProbeTarget, address: IPv4Address) -> Done:
    """Speak to a target, once."""
    facts: dict[str, Fact] = {"address": str(address), "port": target.port}
    where = f"{target} at {address}" if isinstance(target.host, str) else str(target)
    if target.scheme is Scheme.UDP_ECHO:
        return await _udp_echo(guest, target, address, where, facts)
    async with connected(guest, address, target.port, where) as stream:
        if target.scheme is Scheme.HTTP:
            status = await http.get(stream, target)
            if status >= 400:
                raise StepFailed(
                    Kind.WRONG_ANSWER, f"{where}: HTTP status {status}", {**facts, "http_status": status}
                )
            return Done(f"{where}: HTTP status {status}", {**facts, "http_status": status})
        if target.scheme is Scheme.TCP:
            return Done(f"{where}: connected", facts)
        sent = secrets.token_bytes(ECHO_BYTES)
        await stream.write(sent)
        if target.scheme is Scheme.TCP_DISCARD:
            await stream.taken(len(sent))
            return Done(f"{where}: takes what is sent", facts)
        if await stream.read_exactly(len(sent)) != sent:
            raise StepFailed(Kind.WRONG_ANSWER, f"{where}: what comes back differs from what was sent", facts)
        return Done(f"{where}: what is sent comes back", facts)


async def _udp_echo(
    guest: Guest, target: ProbeTarget, address: IPv4Address, where: str, facts: Facts
) -> Done:
    sent = secrets.token_bytes(_SMALL)

    def wanted(came: Datagram) -> bytes:
        return came.data

    answer = await guest.exchange(address, target.port, sent, wanted)
    if isinstance(answer, Unreachable):
        raise refused_by(answer, where)
    if answer != sent:
        raise StepFailed(Kind.WRONG_ANSWER, f"{where}: what comes back differs from what was sent", facts)
    return Done(f"{where}: what is sent comes back", facts)
