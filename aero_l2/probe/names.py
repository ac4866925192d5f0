"""DNS as a guest asks it: over UDP, over TCP where an answer is truncated. RFC 1035, RFC 7766."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
from dns.message import Message

from aero_l2.probe.guest import Guest, refused_by
from aero_l2.probe.outcome import Kind, StepFailed
from aero_l2.probe.packets import Datagram, Unreachable
from aero_l2.probe.streams import Stream, connected

DEFAULT_NAME: Final = "example.com"
"""Asked for where no name is given: NXDOMAIN is an answer then, as where only some domains are allowed."""
PORT: Final = 53
_PAYLOAD: Final = 1232
_ANSWERED: Final = (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)
_MAX_ADDRESSES: Final = 16
_MAX_TCP_BYTES: Final = 16_384
"""A longer answer about addresses is a trick: to read it takes too long."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server says of a name: addresses, none where it does not exist or has none."""

    exists: bool
    addresses: tuple[IPv4Address, ...]


def question(name: str) -> Message:
    """A query for a name's IPv4 addresses."""
    asked = dns.message.make_query(dns.name.from_text(name), dns.rdatatype.A, use_edns=0, payload=_PAYLOAD)
    asked.id = secrets.randbits(16)
    return asked


def reply_to(query: Message, wire: bytes) -> Message | None:
    """The message, if it answers the query; None for everything else. Never raises."""
    try:
        reply = dns.message.from_wire(wire, ignore_trailing=True)
        return reply if query.is_response(reply) else None
    except (dns.exception.DNSException, ValueError, OverflowError):
        return None


def read_answer(reply: Message, server: str) -> Answer:
    """What a reply comes to. Raises StepFailed for a failure of the server."""
    code = reply.rcode()
    if code not in _ANSWERED:
        said = dns.rcode.to_text(code)
        hint = " (its resolvers fail or cannot be reached: AERO_L2_DNS_SERVERS)" if said == "SERVFAIL" else ""
        raise StepFailed(Kind.DNS, f"the DNS server {server} answers {said}{hint}", {"rcode": said})
    found = [
        IPv4Address(record.address)
        for rrset in reply.answer
        if rrset.rdtype == dns.rdatatype.A
        for record in rrset
    ]
    return Answer(code == dns.rcode.NOERROR, tuple(found[:_MAX_ADDRESSES]))


async def ask(guest: Guest, server: IPv4Address, name: str) -> Answer:
    """Ask over UDP; the caller limits the time. Raises StepFailed."""
    query = question(name)

    def wanted(came: Datagram) -> Message | None:
        return reply_to(query, came.data)

    reply = await guest.exchange(server, PORT, query.to_wire(), wanted)
    if isinstance(reply, Unreachable):
        raise refused_by(reply, f"the DNS server {server}")
    if reply.flags & dns.flags.TC:
        return await ask_tcp(guest, server, name)
    return read_answer(reply, str(server))


async def ask_tcp(guest: Guest, server: IPv4Address, name: str) -> Answer:
    """Ask over TCP. Raises StepFailed."""
    query = question(name)
    wire = query.to_wire()
    async with connected(guest, server, PORT, f"{server}:{PORT}") as stream:
        await stream.write(len(wire).to_bytes(2, "big") + wire)
        return read_answer(await _reply(stream, query, server), str(server))


async def _reply(stream: Stream, query: Message, server: IPv4Address) -> Message:
    size = int.from_bytes(await stream.read_exactly(2), "big")
    reply = None
    if size <= _MAX_TCP_BYTES:
        reply = reply_to(query, await stream.read_exactly(size))
    if reply is None:
        raise StepFailed(Kind.DNS, f"the DNS server {server} answers over TCP what is no answer")
    return reply


def denied(name: str, server: IPv4Address) -> StepFailed:
    """The failure that NXDOMAIN is."""
    return StepFailed(
        Kind.NAME_REFUSED,
        f"{name} does not exist, says {server} (NXDOMAIN): is it written correctly, and does the server's "
        "policy let guests look it up (AERO_L2_ALLOWED_DOMAINS, AERO_L2_BLOCKED_DOMAINS)?",
        {"rcode": "NXDOMAIN"},
    )


def without_address(name: str, server: IPv4Address) -> StepFailed:
    """The failure that an answer without addresses is."""
    return StepFailed(
        Kind.NO_ADDRESS,
        f"{name} has no IPv4 address, says {server}, or only such as guests may not reach: "
        "those are left out",
        {"rcode": "NOERROR"},
    )
