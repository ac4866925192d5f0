"""A DHCP client's messages (RFC 2131 §4.4): what it asks, and what it makes of the answers. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, NetmaskValueError
from typing import Final

from aero_l2.client.errors import printable
from aero_l2.probe.outcome import Fact
from aero_l2.services.dhcp import codec
from aero_l2.services.dhcp.codec import DhcpError, DhcpMessage

CLIENT_PORT: Final = 68
SERVER_PORT: Final = 67
_DEFAULT_MTU: Final = 1500
_MIN_MTU: Final = 68
_MIN_USABLE_MTU: Final = 576
_WANTED: Final = bytes(
    (codec.SUBNET_MASK, codec.ROUTER, codec.DNS_SERVERS, codec.INTERFACE_MTU, codec.LEASE_TIME)
)
_PARAMETERS: Final = 55
_MAX_SERVERS: Final = 8


class BadLease(Exception):
    """The server's answer is no lease that a guest could use; the text says why."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What a server gives: address with prefix, router, name servers, its own address, seconds, MTU."""

    interface: IPv4Interface
    router: IPv4Address
    dns: tuple[IPv4Address, ...]
    server: IPv4Address
    lease_s: int
    mtu: int

    def facts(self) -> dict[str, Fact]:
        """For programs."""
        return {
            "address": str(self.interface.ip),
            "mask": str(self.interface.netmask),
            "router": str(self.router),
            "dns": [str(one) for one in self.dns],
            "server": str(self.server),
            "lease_s": self.lease_s,
            "mtu": self.mtu,
        }

    def __str__(self) -> str:
        servers = " ".join(str(one) for one in self.dns)
        return (
            f"{self.interface}, router {self.router}, DNS {servers}, server {self.server}, "
            f"for {self.lease_s} s, MTU {self.mtu}"
        )


def discover(mac: bytes, xid: int) -> bytes:
    """Is there a server?"""
    return _ask(mac, xid, {codec.MESSAGE_TYPE: bytes((codec.DISCOVER,))})


def request(mac: bytes, xid: int, offer: DhcpMessage) -> bytes:
    """That offer, please."""
    asked = {codec.MESSAGE_TYPE: bytes((codec.REQUEST,)), codec.REQUESTED_ADDRESS: offer.yiaddr.packed}
    server = offer.options.get(codec.SERVER_ID)
    return _ask(mac, xid, asked if server is None else {**asked, codec.SERVER_ID: server})


def _ask(mac: bytes, xid: int, options: dict[int, bytes]) -> bytes:
    asked = {**options, _PARAMETERS: _WANTED}
    return codec.encode(DhcpMessage(codec.BOOTREQUEST, xid, mac.ljust(16, b"\0"), asked))


def read(data: bytes, mac: bytes, xid: int) -> DhcpMessage | None:
    """A server's answer to us; None for everything else. Never raises."""
    try:
        message = codec.decode(data)
        kind = message.kind
    except DhcpError:
        return None
    ours = message.op == codec.BOOTREPLY and message.xid == xid and message.chaddr[:6] == mac
    return message if ours and kind in (codec.OFFER, codec.ACK, codec.NAK) else None


def why_refused(nak: DhcpMessage) -> str:
    """The text of a NAK (RFC 2132 §9.9)."""
    said = printable(nak.options.get(codec.MESSAGE, b"").decode("utf-8", "replace"))
    return f"the server refuses the lease that it offered (NAK{': ' + said if said else ''})"


def lease_of(ack: DhcpMessage) -> Lease:
    """What was given. Raises BadLease if a guest could not use it."""
    try:
        interface = _interface(ack)
        server = ack.address(codec.SERVER_ID)
    except DhcpError as fault:
        raise BadLease(f"the lease is damaged: {fault}") from None
    routers, servers = _addresses(ack, codec.ROUTER), _addresses(ack, codec.DNS_SERVERS)
    if not routers:
        raise BadLease(f"the lease of {interface} names no router (option 3)")
    if not servers:
        raise BadLease(f"the lease of {interface} names no DNS server (option 6)")
    seconds = ack.options.get(codec.LEASE_TIME, b"")
    if server is None or len(seconds) != 4:
        raise BadLease(f"the lease of {interface} lacks the server or the time (options 54 and 51)")
    return Lease(interface, routers[0], tuple(servers), server, int.from_bytes(seconds, "big"), _mtu(ack))


def _interface(ack: DhcpMessage) -> IPv4Interface:
    mask = ack.address(codec.SUBNET_MASK)
    if mask is None:
        raise BadLease(f"the lease of {ack.yiaddr} has no mask (option 1)")
    try:
        interface = IPv4Interface(f"{ack.yiaddr}/{mask}")
    except (AddressValueError, NetmaskValueError):
        raise BadLease(f"the lease of {ack.yiaddr} has the mask {mask}, which is none") from None
    address = interface.ip
    if address.is_multicast or address.is_loopback or address.is_unspecified or address.is_reserved:
        raise BadLease(f"the lease is for {address}, which no guest can have")
    return interface


def _addresses(ack: DhcpMessage, code: int) -> list[IPv4Address]:
    value = ack.options.get(code, b"")
    if len(value) % 4:
        raise BadLease(f"the lease is damaged: option {code} has {len(value)} bytes")
    return [IPv4Address(value[at : at + 4]) for at in range(0, min(len(value), 4 * _MAX_SERVERS), 4)]


def _mtu(ack: DhcpMessage) -> int:
    value = ack.options.get(codec.INTERFACE_MTU)
    if value is None:
        return _DEFAULT_MTU
    mtu = int.from_bytes(value, "big") if len(value) == 2 else 0
    if mtu < _MIN_MTU:
        raise BadLease(f"the lease is damaged: its MTU (option 26) is {value[:8].hex()}")
    return max(mtu, _MIN_USABLE_MTU)
